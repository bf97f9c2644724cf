"""Temporal U-Net with FiLM conditioning (Perez et al., 2018; Diffusion Policy, Chi et al., 2023).

Convolutions are written as matrix products over shifted copies: what a TPU's matrix unit wants,
and far faster than the convolution primitive on a CPU.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Conv(nn.Module):
    """1D convolution, kernel 3, zero padding: (B, T, C) to (B, T, features)."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        shifted = jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], axis=-1)
        return nn.Dense(self.features, dtype=self.dtype)(shifted)


class ResidualBlock(nn.Module):
    """Two convolutions, the first modulated by the condition with a scale and a shift."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        h = nn.silu(nn.LayerNorm(dtype=self.dtype)(Conv(self.features, self.dtype)(x)))
        film = nn.Dense(2 * self.features, dtype=self.dtype, name="film")(condition)
        scale, shift = jnp.split(film[:, None], 2, axis=-1)
        h = h * (1 + scale) + shift
        h = nn.silu(nn.LayerNorm(dtype=self.dtype)(Conv(self.features, self.dtype)(h)))
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, name="skip")(x)
        return x + h


class TemporalUNet(nn.Module):
    """Denoiser of action chunks. The horizon must divide by 2 ** (len(widths) - 1).

    Besides modulating every block, the condition is added to the input, a vector for each row: the
    short way from where things are to where the hand goes.
    """

    widths: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """(B, H, A) float32 from a noisy chunk (B, H, A) and a condition (B, C)."""
        action_dim = x.shape[-1]
        horizon, width = x.shape[1], self.widths[0]
        offset = nn.Dense(horizon * width, dtype=self.dtype, name="offset")(condition)
        x = nn.Dense(width, dtype=self.dtype, name="in")(x) + offset.reshape(-1, horizon, width)
        condition = nn.silu(condition)
        block = lambda width, name: ResidualBlock(width, self.dtype, name=name)  # noqa: E731
        skips = []
        for level, width in enumerate(self.widths):
            x = block(width, f"down_{level}")(x, condition)
            if level < len(self.widths) - 1:
                skips.append(x)
                pairs = x.reshape(x.shape[0], x.shape[1] // 2, -1)
                x = nn.Dense(width, dtype=self.dtype, name=f"halve_{level}")(pairs)
        x = block(self.widths[-1], "middle")(x, condition)
        for level in reversed(range(len(self.widths) - 1)):
            width = self.widths[level]
            pairs = nn.Dense(2 * width, dtype=self.dtype, name=f"double_{level}")(x)
            x = pairs.reshape(x.shape[0], -1, width)
            x = block(width, f"up_{level}")(jnp.concatenate([x, skips.pop()], axis=-1), condition)
        return nn.Dense(action_dim, name="out")(x.astype(jnp.float32))
