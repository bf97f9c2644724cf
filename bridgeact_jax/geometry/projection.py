"""Monotone projection of the arm's pose onto its guidance curve.

One call is one control step (0.1 s), in training and in closed loop alike. Distances are measured
in the same units as progress: metres, with rotation at `METRES_PER_RADIAN`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry.guidance import EVENT_LENGTH, METRES_PER_RADIAN, Guidance, is_open

REACH = 0.05
SNAP = 0.15
SETTLE_STEPS = 5
UNLIKELY = 0.5  # what a metre of progress that the pose has not moved weighs, as distance


def embed(position: jax.Array, rotation: jax.Array) -> jax.Array:
    """Poses as (..., 7) points whose distances count rotation in metres.

    The chord between two unit quaternions of one hemisphere is half the angle between them.
    """
    return jnp.concatenate([position, 2.0 * METRES_PER_RADIAN * rotation], axis=-1)


class _Pieces(NamedTuple):
    """The straight pieces of a sampled curve: their progress, events, and squared lengths."""

    start: jax.Array
    end: jax.Array
    event: jax.Array
    opens: jax.Array
    squared_length: jax.Array


def _pieces(guidance: Guidance) -> _Pieces:
    opened = is_open(guidance.gripper)
    chord = jnp.diff(embed(guidance.position, guidance.rotation), axis=0)
    return _Pieces(
        guidance.progress[:-1],
        guidance.progress[1:],
        opened[1:] != opened[:-1],
        opened[1:],
        jnp.sum(chord * chord, axis=-1),
    )


def _measure(
    guidance: Guidance, position: jax.Array, rotation: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Products of poses (..., 3), (..., 4) with every piece: what each distance is made of.

    Returns (..., P - 1) dot products of the offset from a piece's start with the piece, and squared
    lengths of that offset.
    """
    origin = guidance.position[0]
    curve = embed(guidance.position - origin, guidance.rotation)
    chord, start = jnp.diff(curve, axis=0), curve[:-1]
    pose = embed(position - origin, rotation)
    exact = partial(jnp.matmul, precision="highest")
    sign = jnp.where(exact(pose[..., 3:], start[:, 3:].T) < 0, -1.0, 1.0)

    def dot(pieces):
        return exact(pose[..., :3], pieces[:, :3].T) + sign * exact(pose[..., 3:], pieces[:, 3:].T)

    squared = jnp.sum(pose * pose, axis=-1, keepdims=True) + jnp.sum(start * start, axis=-1)
    return dot(chord) - jnp.sum(start * chord, axis=-1), squared - 2 * dot(start)


def _advance(
    pieces: _Pieces,
    progress: jax.Array,
    along: jax.Array,
    squared_offset: jax.Array,
    gripper_command: jax.Array,
) -> jax.Array:
    start, end = pieces.start, pieces.end
    ahead = pieces.event & (end > progress)
    any_ahead = jnp.any(ahead)
    index = jnp.argmax(ahead)
    event_start, event_end = start[index], end[index]
    commanded = any_ahead & (is_open(gripper_command) == pieces.opens[index])

    limit = jnp.minimum(progress + REACH, jnp.where(any_ahead, event_start, end[-1]))
    length = end - start
    safe = jnp.where(length > 0, length, 1.0)
    lower = jnp.maximum(progress - start, 0.0) / safe
    upper = jnp.minimum(limit - start, length) / safe
    squared = pieces.squared_length
    t = jnp.clip(along / jnp.where(squared > 0, squared, 1.0), lower, upper)

    def squared_distance(t):
        return squared_offset - 2 * t * along + t * t * squared

    searched = ~pieces.event & (end >= progress) & (start <= limit)
    moved = jnp.sqrt(jnp.maximum(squared_distance(lower)[jnp.argmax(searched)], 0.0))
    place = start + t * length
    unlikely = UNLIKELY * jnp.maximum(place - progress - moved, 0.0)
    price = squared_distance(t) + unlikely**2
    nearest = jnp.argmin(jnp.where(searched, price, jnp.inf))
    projected = jnp.clip(place[nearest], progress, limit)
    reached = commanded & (event_start - projected <= SNAP)
    projected = jnp.where(reached, event_start, projected)

    settled = jnp.minimum(progress + EVENT_LENGTH / SETTLE_STEPS, event_end)
    in_event = any_ahead & (progress >= event_start)
    return jnp.where(in_event, jnp.where(commanded, settled, progress), projected)


def advance(
    guidance: Guidance,
    progress: jax.Array,
    position: jax.Array,
    rotation: jax.Array,
    gripper_command: jax.Array,
) -> jax.Array:
    """Progress after one control step.

    Away from gripper events: the nearest point of the next `REACH` metres of curve, never past the
    next event. A point to which the curve is longer than the pose has moved counts as farther away:
    where the curve runs back over itself, the way there comes before the way back. Once the event's
    command has been given, within `SNAP` metres, progress moves to the event and over its length in
    `SETTLE_STEPS` steps while the gripper moves.

    Args:
      guidance: P samples.
      progress: () metres, from the step before.
      position: (3,) metres, rotation: (4,) wxyz: where the arm is now.
      gripper_command: () the last command sent, 1 = open.

    Returns:
      () metres, >= `progress`.
    """
    along, squared_offset = _measure(guidance, position, rotation)
    return _advance(_pieces(guidance), progress, along, squared_offset, gripper_command)


def project_history(
    guidance: Guidance,
    position: jax.Array,
    rotation: jax.Array,
    gripper_command: jax.Array,
    steps: jax.Array,
) -> jax.Array:
    """Progress at the last of `steps` control steps of a plan issued at the first.

    Args:
      position: (T, 3), rotation: (T, 4), gripper_command: (T,): poses and the command last sent
        before each, from the plan's first pose on, padded to T.
      steps: () number of entries in use, >= 1.

    Returns:
      () metres.
    """

    pieces = _pieces(guidance)

    def body(progress, row):
        index, along, squared_offset, command = row
        moved = _advance(pieces, progress, along, squared_offset, command)
        return jnp.where((index > 0) & (index < steps), moved, progress), None

    rows = (
        jnp.arange(position.shape[0]),
        *_measure(guidance, position, rotation),
        gripper_command,
    )
    return jax.lax.scan(body, jnp.zeros(()), rows)[0]
