"""Sparse keyframes of a dense trajectory: what a perfect planner would have said.

Keyframes are the first and last frame, gripper transitions, the middle of pauses and, one at a
time, the frame that the guidance curve through the keyframes so far misses by most, until it misses
none by more than a tolerance.
"""

from functools import partial

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry.guidance import (
    METRES_PER_RADIAN,
    SAMPLES_PER_SEGMENT,
    Waypoints,
    build_guidance,
    is_open,
)
from bridgeact_jax.geometry.projection import embed
from bridgeact_jax.geometry.rotations import align, angle

PAUSE_MOTION = 0.002
PAUSE_FRAMES = 3
MARGIN = 2


def _pauses(
    position: jax.Array, rotation: jax.Array, count: jax.Array, fixed: jax.Array
) -> jax.Array:
    """(T,) bool: the middle frame of each run of at least `PAUSE_FRAMES` near-stationary frames.

    A frame is near-stationary when it moved less than `PAUSE_MOTION` metres since the one before,
    rotation counted in metres. A run within `MARGIN` frames of a `fixed` keyframe is its pause.
    """
    frames = jnp.arange(position.shape[0])
    motion = jnp.linalg.norm(jnp.diff(position, axis=0), axis=-1)
    motion += METRES_PER_RADIAN * angle(rotation[1:], rotation[:-1])
    still = jnp.concatenate([jnp.zeros(1, bool), motion < PAUSE_MOTION]) & (frames < count)

    def run_length(length, is_still):
        length = jnp.where(is_still, length + 1, 0)
        return length, length

    _, before = jax.lax.scan(run_length, 0, still)
    _, after = jax.lax.scan(run_length, 0, still, reverse=True)
    long_enough = before + after - 1 >= PAUSE_FRAMES
    near_fixed = jnp.convolve(fixed.astype(jnp.float32), jnp.ones(2 * MARGIN + 1), mode="same") > 0
    run = jnp.cumsum(~still)
    taken = jax.ops.segment_max(
        (near_fixed & still).astype(jnp.int32), run, num_segments=still.shape[0] + 1
    )[run]
    middle = (before == after) | (before == after + 1)
    return still & long_enough & middle & (taken == 0)


def deviation(
    position: jax.Array, rotation: jax.Array, gripper: jax.Array, index: jax.Array, num: jax.Array
) -> jax.Array:
    """(T,) metres from each frame to the curve segment between its neighbouring keyframes.

    Args:
      position, rotation, gripper: (T, ...) of the path; see `find_keyframes`.
      index: (K,) frames of the keyframes, ascending, of which the first `num` are in use.
    """
    size = SAMPLES_PER_SEGMENT + 1
    guidance = build_guidance(Waypoints(position[index], rotation[index], gripper[index], num))
    frames = jnp.arange(position.shape[0])
    segment = jnp.searchsorted(index, frames, side="right", method="compare_all") - 1
    segment = jnp.clip(segment, 0, jnp.maximum(num - 2, 0))
    samples = segment[:, None] * size + jnp.arange(size)
    curve = embed(guidance.position, guidance.rotation)[samples]
    pose = embed(position, align(rotation, guidance.rotation[samples[:, 0]]))
    chord, offset = jnp.diff(curve, axis=1), pose[:, None] - curve[:, :-1]
    squared = jnp.sum(chord * chord, axis=-1)
    t = jnp.sum(offset * chord, axis=-1) / jnp.where(squared > 0, squared, 1.0)
    nearest = jnp.clip(t, 0.0, 1.0)[..., None] * chord
    return jnp.min(jnp.linalg.norm(offset - nearest, axis=-1), axis=1)


@partial(jax.jit, static_argnames="max_keyframes")
def find_keyframes(
    position: jax.Array,
    rotation: jax.Array,
    gripper: jax.Array,
    count: jax.Array,
    *,
    max_keyframes: int = 16,
    tolerance: float = 0.01,
) -> tuple[jax.Array, jax.Array]:
    """Keyframes of a trajectory.

    Args:
      position: (T, 3) metres; rotation: (T, 4) wxyz; gripper: (T,) commanded, 1 = open. Entries
        from `count` on are padding.
      count: () frames in use, >= 2.
      max_keyframes: K, the room for the result.
      tolerance: metres the curve may miss the path by, rotation counted in metres.

    Returns:
      frames (K,) int32, ascending, the last one repeated as padding, and their number (); the
      number is K + 1 when K keyframes do not meet the tolerance or are too few for the gripper
      transitions and pauses.
    """
    total = position.shape[0]
    frames = jnp.arange(total)
    inside = frames < count
    flips = jnp.concatenate([jnp.zeros(1, bool), is_open(gripper[1:]) != is_open(gripper[:-1])])
    fixed = (flips & inside) | (frames == 0) | (frames == count - 1)
    chosen = fixed | _pauses(position, rotation, count, fixed)

    def indices(chosen):
        return jnp.nonzero(chosen, size=max_keyframes, fill_value=count - 1)[0]

    def deviations(chosen):
        miss = deviation(position, rotation, gripper, indices(chosen), jnp.sum(chosen))
        return jnp.where(inside & ~chosen, miss, 0.0)

    def unfinished(state):
        chosen, miss = state
        return (jnp.max(miss) > tolerance) & (jnp.sum(chosen) < max_keyframes)

    def insert(state):
        chosen, miss = state
        chosen = chosen.at[jnp.argmax(miss)].set(True)
        return chosen, deviations(chosen)

    chosen, miss = jax.lax.while_loop(unfinished, insert, (chosen, deviations(chosen)))
    number = jnp.sum(chosen)
    failed = (jnp.max(miss) > tolerance) | (number > max_keyframes)
    return indices(chosen).astype(jnp.int32), jnp.where(failed, max_keyframes + 1, number)
