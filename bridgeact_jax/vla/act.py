"""Acting: chunks of actions from the head, that follow what the model has said."""

from functools import partial

import jax
import jax.numpy as jnp

from bridgeact_jax.models import diffusion
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import ACTION_DIM, Proprioception
from bridgeact_jax.vla.head import Conditions, arm_state
from bridgeact_jax.vla.model import ChatVla, Texts
from bridgeact_jax.vla.sizes import VlaConfig

SAMPLE_STEPS = 10


@partial(jax.jit, static_argnames="config")
def act(
    config: VlaConfig,
    params: dict,
    normalizer: Normalizer,
    pictures: jax.Array,
    texts: Texts,
    proprioception: Proprioception,
    keys: jax.Array,
) -> jax.Array:
    """One chunk for each picture, by DDIM.

    Args:
      pictures: (B, H, W, 3) uint8, of now.
      texts: the instruction with the model's own reasoning, as `generate` leaves them.
      proprioception: batched, of now.
      keys: (B,) typed PRNG keys, one a row, so that a row does not depend on its batch.

    Returns:
      (B, H, 10): position in metres relative to the tool's, 6D rotation, gripper in [0, 1],
      1 = open; `models.observation.absolute` brings it to the base frame.
    """
    model, variables = ChatVla(config), {"params": params}
    robot = jnp.ones(len(pictures), bool)
    features, _ = model.apply(variables, pictures, texts.tokens, robot, method=ChatVla.read)
    state = jax.vmap(arm_state)(proprioception)
    conditions = model.apply(variables, features, texts, state, method=ChatVla.condition)
    return sample(config, params, normalizer, conditions, keys)


def sample(
    config: VlaConfig,
    params: dict,
    normalizer: Normalizer,
    conditions: Conditions,
    keys: jax.Array,
) -> jax.Array:
    """Chunks (B, H, 10) as `act` returns them, by DDIM from noise of `keys` (B,)."""
    shape = (config.horizon, ACTION_DIM)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

    def predict(x, step):
        steps = jnp.full(len(x), step)
        return ChatVla(config).apply(
            {"params": params}, conditions, x, steps, method=ChatVla.denoise
        )

    clean = diffusion.ddim_sample(
        predict,
        noise,
        normalizer.limit,
        train_steps=config.train_steps,
        sample_steps=SAMPLE_STEPS,
    )
    return normalizer.denormalize(clean)
