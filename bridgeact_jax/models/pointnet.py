"""Point-cloud encoder: PointNet (Qi et al., CVPR 2017) with a second, spatial pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class PointNet(nn.Module):
    """A shared MLP over points, pooled in two ways.

    Max pooling says what shape is there; `keypoints` softmax-weighted means of the coordinates say
    where, at the precision of the points themselves. The MLP's first layer is shifted by a context
    vector, so that the guidance decides which object the keypoints settle on. No batch statistics.
    """

    width: int
    keypoints: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, points: jax.Array, mask: jax.Array, context: jax.Array) -> jax.Array:
        """(B, width + 3 * keypoints) from points (B, N, 3), mask (B, N) and context (B, C).

        A cloud without points gives zeros.
        """
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)  # noqa: E731
        narrow = self.width // 2
        shift = dense(narrow, "context")(context)
        exact = nn.Dense(narrow, dtype=jnp.float32, precision="highest", name="point_0")
        x = nn.relu(exact(points) + shift[:, None])
        x = nn.relu(dense(narrow, "point_1")(x))
        x = nn.relu(dense(self.width, "point_2")(x))
        logits = dense(self.keypoints, "attention")(x).astype(jnp.float32)
        logits = jnp.where(mask[..., None], logits, -1e9)
        weights = nn.softmax(logits, axis=1) * mask[..., None]
        where = jnp.einsum("bnk,bnd->bkd", weights, points, precision="highest")
        what = jnp.max(jnp.where(mask[..., None], x, 0.0), axis=1)
        where = where.reshape(points.shape[0], -1)
        return jnp.concatenate([what.astype(jnp.float32), where], axis=-1)
