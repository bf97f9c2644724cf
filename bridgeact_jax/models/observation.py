"""What the expert sees and says, as arrays: shared by training and closed loop.

Positions are relative to the current end-effector position in base axes and divided by `UNIT`;
rotations are `R R_current^T` (base axes, so that an unknown tool frame cancels) in 6D.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry import rotations
from bridgeact_jax.geometry.guidance import Guidance, next_goals, sample

UNIT = 0.1
PAST = 2
WINDOW = (0.0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.10, 0.13, 0.16, 0.20, 0.25)
GOALS = 2
ACTION_DIM = 10
LOOK_AHEAD = 0.12  # metres


class Observation(NamedTuple):
    """One step's input: proprio (P,), window (W + GOALS, 10), focus (3,), points (N, 3) and
    point_mask (N,). Focus and points are metres relative to the tool, divided by `UNIT`.
    """

    proprio: jax.Array
    window: jax.Array
    focus: jax.Array
    points: jax.Array
    point_mask: jax.Array


class Proprioception(NamedTuple):
    """The arm's own state in the base frame, oldest pose first, the current pose last.

    position (PAST + 1, 3) m; rotation (PAST + 1, 4) wxyz; gripper_command () last sent, 1 = open;
    gripper_width () in [0, 1], NaN where it is not measured.
    """

    position: jax.Array
    rotation: jax.Array
    gripper_command: jax.Array
    gripper_width: jax.Array


def relative(
    position: jax.Array, rotation: jax.Array, origin: jax.Array, facing: jax.Array
) -> jax.Array:
    """(..., 9) metres and 6D rotation of poses, seen from the pose `origin` (3,), `facing` (4,)."""
    turned = rotations.multiply(rotation, rotations.conjugate(facing))
    return jnp.concatenate([position - origin, rotations.to_sixd(turned)], axis=-1)


def absolute(
    chunk: jax.Array, origin: jax.Array, facing: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Base-frame position (H, 3), rotation (H, 4) and gripper (H,) of an action chunk (H, 10)."""
    rotation = rotations.multiply(rotations.from_sixd(chunk[..., 3:9]), facing)
    return origin + chunk[..., :3], rotation, chunk[..., 9]


def action_chunk(
    position: jax.Array,
    rotation: jax.Array,
    gripper: jax.Array,
    origin: jax.Array,
    facing: jax.Array,
) -> jax.Array:
    """(H, 10) chunk of base-frame targets: the inverse of `absolute`."""
    poses = relative(position, rotation, origin, facing)
    return jnp.concatenate([poses, gripper[:, None]], axis=-1)


def guidance_window(
    guidance: Guidance, progress: jax.Array, origin: jax.Array, facing: jax.Array
) -> jax.Array:
    """(W + GOALS, 10) samples at `WINDOW` metres ahead of `progress` and, last, the next goals.

    A goal is the pose of a gripper event, of a turn back, or the curve's end. The second tells what
    the first is for: a hand that closes may be about to lift, or to push.
    """
    ahead = sample(guidance, progress + jnp.array(WINDOW))
    *goals, _ = next_goals(guidance, progress, GOALS)
    position, rotation, gripper = (
        jnp.concatenate(parts) for parts in zip(ahead, goals, strict=True)
    )
    chunk = action_chunk(position, rotation, gripper, origin, facing)
    return chunk.at[:, :3].divide(UNIT)


def focus_progress(guidance: Guidance, progress: jax.Array) -> jax.Array:
    """() metres: where along the curve to look, a little ahead but not beyond the next goal."""
    *_, goal = next_goals(guidance, progress, 1)
    return jnp.minimum(progress + LOOK_AHEAD, goal[0])


def focus(guidance: Guidance, progress: jax.Array) -> jax.Array:
    """(3,) metres: the position at `focus_progress`."""
    position, _, _ = sample(guidance, focus_progress(guidance, progress))
    return position


def observe(
    guidance: Guidance,
    progress: jax.Array,
    proprioception: Proprioception,
    points: jax.Array,
    point_mask: jax.Array,
) -> Observation:
    """The expert's input at one step.

    Args:
      guidance: the plan's curve; progress: () metres along it.
      points: (N, 3) metres relative to the current end-effector position, base axes;
        point_mask: (N,) bool.
    """
    origin, facing = proprioception.position[-1], proprioception.rotation[-1]
    past = relative(proprioception.position[:-1], proprioception.rotation[:-1], origin, facing)
    past = past.at[:, :3].divide(UNIT)
    known = jnp.isfinite(proprioception.gripper_width)
    width = jnp.where(known, proprioception.gripper_width, 0.0)
    gripper = jnp.stack([proprioception.gripper_command, width, known.astype(jnp.float32)])
    return Observation(
        proprio=jnp.concatenate([past.reshape(-1), gripper]),
        window=guidance_window(guidance, progress, origin, facing),
        focus=(focus(guidance, progress) - origin) / UNIT,
        points=points / UNIT,
        point_mask=point_mask,
    )
