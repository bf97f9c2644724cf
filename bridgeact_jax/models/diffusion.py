"""DDPM training and DDIM sampling as pure functions; the network predicts the clean sample.

Ho et al. (2020) for the forward process, Nichol & Dhariwal (2021) for the squared-cosine schedule,
Song et al. (2021) for the deterministic sampler.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def signal_levels(steps: int) -> np.ndarray:
    """(steps,) cumulative products of alpha, float32, falling from nearly 1 to nearly 0."""
    time = np.arange(steps + 1) / steps
    level = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - level[1:] / level[:-1], 0.999)
    return np.cumprod(1 - beta).astype(np.float32)


def embed_step(step: jax.Array, dim: int, train_steps: int) -> jax.Array:
    """(B, dim) sines and cosines, float32, of diffusion steps (B,) out of `train_steps`."""
    frequency = jnp.exp(jnp.linspace(0.0, jnp.log(float(train_steps)), dim // 2))
    phase = step.astype(jnp.float32)[:, None] / train_steps * frequency
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


def add_noise(
    clean: jax.Array, noise: jax.Array, step: jax.Array, train_steps: int
) -> jax.Array:
    """Sample of q(x_step | x_0): (B, ...) from clean and noise (B, ...) and step (B,) int."""
    level = jnp.asarray(signal_levels(train_steps))[step]
    level = level.reshape(level.shape + (1,) * (clean.ndim - 1))
    return jnp.sqrt(level) * clean + jnp.sqrt(1 - level) * noise


def ddim_sample(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    noise: jax.Array,
    limit: jax.Array,
    *,
    train_steps: int,
    sample_steps: int,
) -> jax.Array:
    """Deterministic DDIM from pure noise.

    Args:
      predict: clean sample (B, ...) from (x (B, ...), step () int32).
      noise: (B, ...) standard normal.
      limit: magnitude, broadcastable to a sample, at which each prediction is clipped.
      train_steps: length of the forward process; sample_steps: network calls, evenly spaced over
        it and starting at its last step.

    Returns:
      (B, ...) the last clean prediction.
    """
    levels = signal_levels(train_steps)
    steps = np.linspace(train_steps - 1, 0, sample_steps).round().astype(np.int32)
    level = levels[steps]
    following = np.append(levels[steps[1:]], np.float32(1.0))

    def body(x, row):
        step, now, then = row
        clean = jnp.clip(predict(x, step), -limit, limit)
        residual = (x - jnp.sqrt(now) * clean) / jnp.sqrt(1 - now)
        return jnp.sqrt(then) * clean + jnp.sqrt(1 - then) * residual, None

    return jax.lax.scan(body, noise, (steps, level, following))[0]
