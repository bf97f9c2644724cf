"""The action expert: a diffusion policy conditioned on guidance, arm state and a local cloud."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from bridgeact_jax.models import diffusion
from bridgeact_jax.models.denoiser import TemporalUNet
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import ACTION_DIM, GOALS, PAST, WINDOW, Observation
from bridgeact_jax.models.pointnet import PointNet

GLANCES = 2  # the second around where the first has found what is meant
SAMPLE_STEPS = 3  # of the denoiser for a chunk
TEMPERATURE = 0.0  # of the noise that sampling starts from
GATE_GAIN = 10.0  # the gate starts at zero and moves by about the learning rate a step


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes of the expert: `horizon` rows of 0.1 s, `points` in a crop of `crop_radius` metres."""

    horizon: int = 8
    widths: tuple[int, ...] = (64, 128)
    condition: int = 128
    point_widths: tuple[int, ...] = (64, 64, 128)
    keypoints: int = 16
    points: int = 128
    crop_radius: float = 0.3
    train_steps: int = 100
    dtype: str = "float32"


class Glance(nn.Module):
    """A look at the points around a place, and by how much the place should be moved."""

    config: ExpertConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, observation: Observation, place: jax.Array, context: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Features (B, F) of the cloud around `place` (B, 3), and the correction (B, 3)."""
        config, dense = self.config, partial(nn.Dense, dtype=self.dtype)
        context = nn.relu(dense(config.point_widths[0], name="context")(context))
        features = PointNet(config.point_widths, config.keypoints, self.dtype, name="points")(
            observation.points - place[:, None], observation.point_mask, context
        )
        hidden = nn.silu(dense(config.condition // 2, name="hidden")(features))
        correct = dense(3, kernel_init=nn.initializers.zeros, name="correction")
        correction = correct(jnp.concatenate([features, hidden], axis=-1))
        return features, correction.astype(jnp.float32)


class ActionExpert(nn.Module):
    """`encode` an observation once, `denoise` any number of noisy chunks against it."""

    config: ExpertConfig

    def setup(self):
        config = self.config
        dtype = jnp.dtype(config.dtype)

        def mlp(name):
            return nn.Sequential(
                [
                    nn.Dense(config.condition, dtype=dtype, name=f"{name}_0"),
                    nn.silu,
                    nn.Dense(config.condition, dtype=dtype, name=f"{name}_1"),
                ]
            )

        self.proprio = mlp("proprio")
        self.guidance = mlp("guidance")
        self.time = mlp("time")
        self.glances = [Glance(config, dtype) for _ in range(GLANCES)]
        self.cloud = mlp("cloud")
        self.cloud_skip = nn.Dense(config.condition, dtype=dtype)
        self.cloud_gate = self.param("cloud_gate", nn.initializers.zeros, (config.condition,))
        self.unet = TemporalUNet(config.widths, dtype)

    def encode(
        self,
        observation: Observation,
        guided: jax.Array,
        *,
        use_cloud: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Condition (B, C) float32, and where each glance at the cloud found what the observation's
        focus is meant to be on, (GLANCES, B, 3) in the units of the points; NaN without a cloud.

        Args:
          observation: batched.
          guided: (B,) bool, False where the guidance is withheld (condition dropout).
          use_cloud: False computes stage 1's function. With True and a gate at zero the result is
            the same to the last bit; an empty cloud contributes nothing.
        """
        seen = jnp.where(guided[:, None, None], observation.window, 0.0)
        window = seen.reshape(seen.shape[0], -1)
        flags = guided[:, None].astype(window.dtype)
        guidance = self.guidance(jnp.concatenate([window, flags], axis=-1))
        condition = self.proprio(observation.proprio) + guidance
        found = jnp.full((GLANCES, *observation.focus.shape), jnp.nan)
        if use_cloud or self.is_initializing():
            context = jnp.concatenate([window, flags, observation.proprio], axis=-1)
            some = jnp.any(observation.point_mask, axis=-1, keepdims=True)
            place, places = jnp.where(guided[:, None], observation.focus, 0.0), []
            for glance in self.glances:
                features, correction = glance(observation, place, context)
                place = place + jnp.where(some, correction, 0.0)
                places.append(place)
                place = jax.lax.stop_gradient(place)
            found = jnp.stack(places)
            features = jnp.concatenate([features, place], axis=-1)
            cloud = jnp.where(some, self.cloud(features) + self.cloud_skip(features), 0.0)
            condition = condition + GATE_GAIN * self.cloud_gate * cloud
        return condition.astype(jnp.float32), found

    def denoise(self, condition: jax.Array, noisy: jax.Array, step: jax.Array) -> jax.Array:
        """Clean normalised chunk (B, H, 10) from a noisy one at diffusion step (B,)."""
        embedded = diffusion.embed_step(step, self.config.condition, self.config.train_steps)
        return self.unet(noisy, condition + self.time(embedded))

    def __call__(
        self, observation: Observation, noisy: jax.Array, step: jax.Array
    ) -> jax.Array:
        guided = jnp.ones(noisy.shape[0], bool)
        condition, _ = self.encode(observation, guided, use_cloud=True)
        return self.denoise(condition, noisy, step)


def example_inputs(config: ExpertConfig, batch: int = 1) -> tuple:
    """Zero arguments of `ActionExpert.__call__`, for initialisation by shape."""
    observation = Observation(
        proprio=jnp.zeros((batch, 9 * PAST + 3)),
        window=jnp.zeros((batch, len(WINDOW) + GOALS, ACTION_DIM)),
        focus=jnp.zeros((batch, 3)),
        points=jnp.zeros((batch, config.points, 3)),
        point_mask=jnp.zeros((batch, config.points), bool),
    )
    noisy = jnp.zeros((batch, config.horizon, ACTION_DIM))
    return observation, noisy, jnp.zeros(batch, jnp.int32)


def sample_chunks(
    config: ExpertConfig,
    params: dict,
    normalizer: Normalizer,
    observation: Observation,
    keys: jax.Array,
    *,
    use_cloud: bool,
    use_guidance: bool = True,
    sample_steps: int = SAMPLE_STEPS,
    temperature: float = TEMPERATURE,
) -> jax.Array:
    """One action chunk for each observation, by DDIM.

    Args:
      observation: batched (B, ...).
      keys: (B,) typed PRNG keys, one an element, so that a row does not depend on its batch.
      use_guidance: False withholds the guidance, as condition dropout does.
      temperature: scale of the standard normal noise that is denoised; at 0 keys do not matter.

    Returns:
      (B, H, 10): relative position in metres, 6D rotation, gripper in [0, 1], 1 = open.
    """
    expert = ActionExpert(config)
    variables = {"params": params}
    shape = (config.horizon, ACTION_DIM)
    noise = temperature * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    guided = jnp.full(noise.shape[0], use_guidance)
    condition, _ = expert.apply(
        variables, observation, guided, use_cloud=use_cloud, method=ActionExpert.encode
    )

    def predict(x, step):
        steps = jnp.full(x.shape[0], step)
        return expert.apply(variables, condition, x, steps, method=ActionExpert.denoise)

    clean = diffusion.ddim_sample(
        predict,
        noise,
        normalizer.limit,
        train_steps=config.train_steps,
        sample_steps=sample_steps,
    )
    return normalizer.denormalize(clean)
