"""Crop and fixed-size subsampling of point clouds."""

import jax
import jax.numpy as jnp


def crop(
    key: jax.Array, cloud: jax.Array, center: jax.Array, radius: float, num_points: int
) -> tuple[jax.Array, jax.Array]:
    """A uniform random subset, without replacement, of the points within `radius` of `center`.

    Args:
      key: typed PRNG key.
      cloud: (M, 3) metres, M >= num_points.
      center: (3,) metres, in the frame of the cloud.
      radius: metres.
      num_points: N.

    Returns:
      points (N, 3) relative to `center`, and mask (N,), False (and the point zero) where fewer
      than N points lie inside: an empty crop is an all-False mask.
    """
    relative = cloud.astype(jnp.float32) - center
    inside = jnp.sum(relative * relative, axis=-1) <= radius**2
    priority = jnp.where(inside, jax.random.uniform(key, inside.shape), -1.0)
    best, index = jax.lax.top_k(priority, num_points)
    mask = best >= 0
    return jnp.where(mask[:, None], relative[index], 0.0), mask
