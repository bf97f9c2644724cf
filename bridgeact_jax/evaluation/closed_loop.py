"""The expert in closed loop, as pure functions over a batch of arms.

`start` receives the plans, `track` runs at every control step (0.1 s), `act` whenever a chunk is
wanted. They call the very functions that training calls.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry import clouds as cloud_lib
from bridgeact_jax.geometry.guidance import Guidance, Waypoints, build_guidance
from bridgeact_jax.geometry.projection import advance
from bridgeact_jax.models.action_expert import (
    SAMPLE_STEPS,
    TEMPERATURE,
    ExpertConfig,
    sample_chunks,
)
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import PAST, Proprioception, absolute, focus, observe


class LoopState(NamedTuple):
    """Batched (B, ...): the plan's curve, progress (B,) m along it, and the arm's recent state."""

    guidance: Guidance
    progress: jax.Array
    proprioception: Proprioception


@jax.jit
def start(plans: Waypoints, gripper_width: jax.Array) -> LoopState:
    """State at the moment the plans (B, K, ...) are issued; waypoint 0 is the current pose."""
    guidance = jax.vmap(build_guidance)(plans)
    now = plans.position[:, 0], plans.rotation[:, 0], plans.gripper[:, 0]
    return LoopState(guidance, jnp.zeros(plans.count.shape), at_rest(*now, gripper_width))


@jax.jit
def at_rest(
    position: jax.Array, rotation: jax.Array, gripper_command: jax.Array, gripper_width: jax.Array
) -> Proprioception:
    """Of arms that have stood at these poses (B, ...)."""
    poses = PAST + 1
    return Proprioception(
        jnp.repeat(position[:, None], poses, axis=1),
        jnp.repeat(rotation[:, None], poses, axis=1),
        gripper_command,
        gripper_width,
    )


@jax.jit
def moved(
    past: Proprioception,
    position: jax.Array,
    rotation: jax.Array,
    gripper_command: jax.Array,
    gripper_width: jax.Array,
) -> Proprioception:
    """The same arms one control step later, from the measured poses (B, ...)."""
    return Proprioception(
        jnp.concatenate([past.position[:, 1:], position[:, None]], axis=1),
        jnp.concatenate([past.rotation[:, 1:], rotation[:, None]], axis=1),
        gripper_command,
        gripper_width,
    )


@jax.jit
def replace(state: LoopState, arm: jax.Array, plan: Waypoints) -> LoopState:
    """State with a new plan (K, ...), issued now, for arm number `arm` (); the others' stay."""
    guidance = jax.tree.map(
        lambda old, new: old.at[arm].set(new), state.guidance, build_guidance(plan)
    )
    return state._replace(guidance=guidance, progress=state.progress.at[arm].set(0.0))


@jax.jit
def track(
    state: LoopState,
    position: jax.Array,
    rotation: jax.Array,
    gripper_command: jax.Array,
    gripper_width: jax.Array,
) -> LoopState:
    """State one control step later, from the measured poses (B, ...) and the command just sent."""
    progress = jax.vmap(advance)(
        state.guidance, state.progress, position, rotation, gripper_command
    )
    arm = moved(state.proprioception, position, rotation, gripper_command, gripper_width)
    return LoopState(state.guidance, progress, arm)


def act(
    config: ExpertConfig,
    params: dict,
    normalizer: Normalizer,
    state: LoopState,
    clouds: jax.Array,
    keys: jax.Array,
    *,
    use_cloud: bool,
    use_guidance: bool = True,
    sample_steps: int = SAMPLE_STEPS,
    temperature: float = TEMPERATURE,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Targets for the next control steps.

    Args:
      clouds: (B, M, 3) metres, base frame; ignored without `use_cloud`.
      keys: (B,) typed PRNG keys.
      use_guidance: False withholds the guidance.
      sample_steps, temperature: as in `sample_chunks`.

    Returns:
      base-frame position (B, H, 3), rotation (B, H, 4) and gripper (B, H), 1 = open. Row h is the
      target 0.1 (h + 1) s from now, its gripper the command to send on the way there.
    """
    split = jax.vmap(jax.random.split)(keys)
    origin = state.proprioception.position[:, -1]
    facing = state.proprioception.rotation[:, -1]
    looked_at = jax.vmap(focus)(state.guidance, state.progress) if use_guidance else None
    points, mask = jax.vmap(cloud_lib.crop, in_axes=(0, 0, 0, None, None, 0))(
        split[:, 0], clouds, origin, config.crop_radius, config.points, looked_at
    )
    observation = jax.vmap(observe)(
        state.guidance, state.progress, state.proprioception, points, mask
    )
    chunks = sample_chunks(
        config,
        params,
        normalizer,
        observation,
        split[:, 1],
        use_cloud=use_cloud,
        use_guidance=use_guidance,
        sample_steps=sample_steps,
        temperature=temperature,
    )
    return jax.vmap(absolute)(chunks, origin, facing)
