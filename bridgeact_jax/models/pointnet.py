"""Point-cloud encoder: PointNet (Qi et al., CVPR 2017) with a second, spatial pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp

REACHES = (0.1, 0.2, 0.4)  # of Gaussians around the origin, in the points' units


class PointNet(nn.Module):
    """A shared MLP over points, pooled in two ways.

    Max pooling says what shape is there; `keypoints` softmax-weighted means of the coordinates say
    where, at the precision of the points themselves. The MLP sees coordinates and how near the
    origin they are; its first layer is shifted by a context vector. No batch statistics.
    """

    widths: tuple[int, ...]
    keypoints: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, points: jax.Array, mask: jax.Array, context: jax.Array) -> jax.Array:
        """(B, widths[-1] + 3 * keypoints) from points (B, N, 3), mask (B, N) and context (B, C).

        A cloud without points gives zeros.
        """
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)  # noqa: E731
        first, *others = self.widths
        shift = dense(first, "context")(context)
        exact = nn.Dense(first, dtype=jnp.float32, precision="highest", name="point_0")
        squared = jnp.sum(points * points, axis=-1, keepdims=True)
        near = [jnp.exp(-squared / (2 * reach**2)) for reach in REACHES]
        x = nn.relu(exact(jnp.concatenate([points, *near], axis=-1)) + shift[:, None])
        for number, width in enumerate(others, 1):
            x = nn.relu(dense(width, f"point_{number}")(x))
        logits = dense(self.keypoints, "attention")(x).astype(jnp.float32)
        logits = jnp.where(mask[..., None], logits, -1e9)
        weights = nn.softmax(logits, axis=1) * mask[..., None]
        where = jnp.einsum("bnk,bnd->bkd", weights, points, precision="highest")
        what = largest(jnp.where(mask[..., None], x, 0.0))
        where = where.reshape(points.shape[0], -1)
        return jnp.concatenate([what.astype(jnp.float32), where], axis=-1)


@jax.custom_vjp
def largest(x: jax.Array) -> jax.Array:
    """Maximum over points, (B, W) from (B, N, W); equal ones share the gradient, as with jnp.max.

    Its own gradient, because that of jnp.max writes an array of the size of `x` more: a fifth of a
    training step with 1024 points on a CPU.
    """
    return jnp.max(x, axis=1)


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    best = largest(x)
    return best, (x, best)


def _backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, best = kept
    equal = x == best[:, None]
    share = gradient / jnp.sum(equal, axis=1)
    return (jnp.where(equal, share[:, None], 0),)


largest.defvjp(_forward, _backward)
