"""Scaling of action chunks, fitted once and carried in the checkpoint."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

POSITION_FLOOR = 0.01


class Normalizer(NamedTuple):
    """scale (10,): metres per unit for positions, 1 for 6D; the gripper maps [0, 1] to [-1, 1].

    limit (10,): the largest magnitude of normalised training data, where samples are clipped.
    """

    scale: jax.Array
    limit: jax.Array

    def normalize(self, chunk: jax.Array) -> jax.Array:
        """(..., 10) from metres, 6D and gripper in [0, 1] to roughly [-1, 1]."""
        return chunk.at[..., 9].set(2.0 * chunk[..., 9] - 1.0) / self.scale

    def denormalize(self, chunk: jax.Array) -> jax.Array:
        """Inverse of `normalize`."""
        chunk = chunk * self.scale
        return chunk.at[..., 9].set(0.5 * (chunk[..., 9] + 1.0))


def identity() -> Normalizer:
    """A normalizer that scales nothing: the shape to restore into."""
    return Normalizer(jnp.ones(10), jnp.ones(10))


def fit(chunks: jax.Array, mask: jax.Array) -> Normalizer:
    """Normalizer of sampled chunks (B, H, 10), of which numbers with mask (B, H, 10) count.

    Positions: the 99 % quantile of the magnitude over all rows, per axis, at least
    `POSITION_FLOOR`, so that an axis that hardly moves is not blown up.
    """
    magnitude = jnp.where(mask, jnp.abs(chunks), jnp.nan)[..., :3]
    position = jnp.maximum(jnp.nanquantile(magnitude, 0.99, axis=(0, 1)), POSITION_FLOOR)
    normalizer = Normalizer(jnp.concatenate([position, jnp.ones(7)]), jnp.ones(10))
    seen = jnp.where(mask, jnp.abs(normalizer.normalize(chunks)), 0.0)
    return normalizer._replace(limit=jnp.maximum(seen.max(axis=(0, 1)), 1.0))
