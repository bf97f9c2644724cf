"""Crop and fixed-size subsampling of point clouds."""

import jax
import jax.numpy as jnp

FOCUS = 0.08  # metres, standard deviation of the weight of points around the focus
ELSEWHERE = 0.05  # their weight far from it, where it is 1 at the focus


def crop(
    key: jax.Array,
    cloud: jax.Array,
    center: jax.Array,
    radius: float,
    num_points: int,
    focus: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """A random subset, without replacement, of the points within `radius` of `center`.

    Uniform, or denser around a focus, whose surroundings of half that radius then belong to it too
    (weighted as by Efraimidis & Spirakis, Information Processing Letters 2006).

    Args:
      key: typed PRNG key.
      cloud: (M, 3) metres, M >= num_points.
      center: (3,) metres, in the frame of the cloud.
      radius: metres.
      num_points: N.
      focus: (3,) metres, or None.

    Returns:
      points (N, 3) relative to `center`, and mask (N,), False (and the point zero) where fewer
      than N points lie inside: an empty crop is an all-False mask.
    """
    relative = cloud.astype(jnp.float32) - center
    inside = jnp.sum(relative * relative, axis=-1) <= radius**2
    priority = jnp.log(jax.random.uniform(key, inside.shape, minval=1e-7))
    if focus is not None:
        away = jnp.sum((relative - (focus - center)) ** 2, axis=-1)
        inside |= away <= (radius / 2) ** 2
        priority /= jnp.exp(-away / (2 * FOCUS**2)) + ELSEWHERE
    best, index = jax.lax.top_k(jnp.where(inside, priority, -jnp.inf), num_points)
    mask = best > -jnp.inf
    return jnp.where(mask[:, None], relative[index], 0.0), mask
