"""Sparse waypoints to a dense guidance curve, parameterised by progress.

Positions follow an interpolating cubic B-spline with chord-length knots, doubled at every waypoint
(C1) and tripled at gripper events and at the ends (C0: the arm stops there). Its control points are
set by local tangents,

    m_k = max(0, a . b) * normalize(a + b),    a, b = unit chords into and out of waypoint k,

so a straight run keeps full speed, a right angle becomes an exact corner and nothing else in the
plan can make the curve swing: it leaves a chord by at most 8 % of that chord's length. The rule
turns with the waypoints, whatever the frame. Rotations follow the geodesic at the pace of the arc
length; the gripper is a step that is held.

**Progress** is in metres along the curve: arc length, plus `METRES_PER_RADIAN` of rotation, plus
`EVENT_LENGTH` at each gripper event, over which the pose stands still.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry import rotations

METRES_PER_RADIAN = 0.1
EVENT_LENGTH = 0.02
SAMPLES_PER_SEGMENT = 12
TURNED_BACK = -0.5  # cosine between the directions before and after a waypoint


class Waypoints(NamedTuple):
    """A plan: position (K, 3) m, rotation (K, 4) wxyz, gripper (K,), count () of those in use.

    Waypoint 0 is the current pose. A waypoint's gripper is the state commanded once it is reached:
    a change against the waypoint before is a gripper event at that waypoint. Entries from `count`
    on are ignored.
    """

    position: jax.Array
    rotation: jax.Array
    gripper: jax.Array
    count: jax.Array


class Guidance(NamedTuple):
    """A sampled curve: position (P, 3) m, rotation (P, 4) wxyz, gripper (P,), progress (P,) m.

    Progress never falls; from the last waypoint on all samples repeat. Two neighbouring samples
    with different gripper values are a gripper event.
    """

    position: jax.Array
    rotation: jax.Array
    gripper: jax.Array
    progress: jax.Array


def is_open(gripper: jax.Array) -> jax.Array:
    """Whether a gripper command in [0, 1] means open."""
    return gripper > 0.5


def chord_tangents(position: jax.Array, corner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tangents per metre of chord on both sides of each waypoint.

    Args:
      position: (K, 3) metres.
      corner: (K,) bool, where the curve may break (gripper events).

    Returns:
      (K, 3) incoming and (K, 3) outgoing tangents, length <= 1; equal where there is no break.
    """
    chord = rotations.normalize(jnp.diff(position, axis=0))
    into = jnp.concatenate([chord[:1], chord])
    out = jnp.concatenate([chord, chord[-1:]])
    ends = ~jnp.any(out, axis=-1, keepdims=True)
    out = jnp.where(ends, into, out)
    straightness = jnp.maximum(jnp.sum(into * out, axis=-1, keepdims=True), 0.0)
    smooth = straightness * rotations.normalize(into + out)
    corner = corner[:, None]
    return jnp.where(corner, into, smooth), jnp.where(corner, out, smooth)


def control_points(position: jax.Array, corner: jax.Array) -> jax.Array:
    """Bezier control polygons (K-1, 4, 3) of the spline's segments, metres."""
    into, out = chord_tangents(position, corner)
    start, end = position[:-1], position[1:]
    third = jnp.linalg.norm(end - start, axis=-1, keepdims=True) / 3.0
    return jnp.stack([start, start + third * out[:-1], end - third * into[1:], end], axis=1)


def _tidy(waypoints: Waypoints) -> Waypoints:
    """The last waypoint in use repeated as padding, and quaternions of one running hemisphere."""
    index = jnp.minimum(jnp.arange(waypoints.position.shape[0]), waypoints.count - 1)
    rotation = waypoints.rotation[index]
    same = jnp.sum(rotation[1:] * rotation[:-1], axis=-1, keepdims=True) >= 0
    sign = jnp.cumprod(jnp.where(same, 1.0, -1.0), axis=0)
    return waypoints._replace(
        position=waypoints.position[index],
        rotation=jnp.concatenate([rotation[:1], sign * rotation[1:]]),
        gripper=waypoints.gripper[index],
    )


def build_guidance(
    waypoints: Waypoints, samples_per_segment: int = SAMPLES_PER_SEGMENT
) -> Guidance:
    """The guidance curve through the waypoints.

    Args:
      waypoints: K entries of which `count` are in use.
      samples_per_segment: S samples on each of the K - 1 segments.

    Returns:
      P = 1 + (K - 1) * (S + 1) samples: the start, and for each segment its S samples and the end
      of the gripper event at its far waypoint (a repeat where there is none).
    """
    waypoints = _tidy(waypoints)
    position, gripper = waypoints.position, waypoints.gripper
    event = is_open(gripper[1:]) != is_open(gripper[:-1])
    corner = jnp.concatenate([jnp.zeros(1, bool), event])
    polygons = control_points(position, corner)

    u = jnp.arange(1, samples_per_segment + 1, dtype=jnp.float32) / samples_per_segment
    basis = jnp.stack([(1 - u) ** 3, 3 * u * (1 - u) ** 2, 3 * u**2 * (1 - u), u**3], axis=-1)
    points = jnp.einsum("sb,kbd->ksd", basis, polygons, precision="highest")
    before = jnp.concatenate([position[:-1, None], points[:, :-1]], axis=1)
    step = jnp.linalg.norm(points - before, axis=-1)

    arc = jnp.cumsum(step, axis=1)
    fraction = (arc + 1e-6 * u) / (arc[:, -1:] + 1e-6)
    start, end = waypoints.rotation[:-1, None], waypoints.rotation[1:, None]
    turned = rotations.slerp(start, end, fraction)
    turn = METRES_PER_RADIAN * rotations.angle(start, end) * jnp.diff(fraction, prepend=0.0)

    def with_event(samples, event_sample):
        return jnp.concatenate([samples, event_sample[:, None]], axis=1).reshape(
            -1, *samples.shape[2:]
        )

    increments = with_event(step + turn, EVENT_LENGTH * event)
    held = jnp.broadcast_to(gripper[:-1, None], step.shape)
    return Guidance(
        position=jnp.concatenate([position[:1], with_event(points, position[1:])]),
        rotation=jnp.concatenate([waypoints.rotation[:1], with_event(turned, turned[:, -1])]),
        gripper=jnp.concatenate([gripper[:1], with_event(held, gripper[1:])]),
        progress=jnp.concatenate([jnp.zeros(1), jax.lax.cummax(jnp.cumsum(increments))]),
    )


def sample(
    guidance: Guidance, progress: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Position (..., 3), rotation (..., 4) and gripper (...,) at `progress` metres (...,).

    Clamped to the curve. The gripper changes just past the start of its event.
    """
    last = guidance.progress.shape[0] - 1
    right = jnp.searchsorted(guidance.progress, progress, side="left", method="compare_all")
    right = jnp.clip(right, 1, last)
    left = right - 1
    span = guidance.progress[right] - guidance.progress[left]
    t = jnp.where(span > 0, (progress - guidance.progress[left]) / jnp.maximum(span, 1e-9), 0.0)
    t = jnp.clip(t, 0.0, 1.0)
    position = guidance.position[left] + t[..., None] * (
        guidance.position[right] - guidance.position[left]
    )
    rotation = rotations.slerp(guidance.rotation[left], guidance.rotation[right], t)
    gripper = jnp.where(
        progress > guidance.progress[left], guidance.gripper[right], guidance.gripper[left]
    )
    return position, rotation, gripper


def next_goals(
    guidance: Guidance, progress: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Where the hand stops next; the end of the curve for those that are not left.

    It stops at gripper events, and where the curve turns back by more than 120 degrees: at the end
    of a push, of a pull.

    Args:
      progress: () metres. An event counts as next until its length has been passed.
      count: how many.

    Returns:
      position (count, 3), rotation (count, 4), the gripper commanded from there on (count,), and
      the progress of the stops (count,) in metres.
    """
    event = is_open(guidance.gripper[1:]) != is_open(guidance.gripper[:-1])
    direction = rotations.normalize(jnp.diff(guidance.position, axis=0))
    back = jnp.sum(direction[:-2] * direction[2:], axis=-1) < TURNED_BACK
    stop = event.at[1:-1].set(event[1:-1] | back)
    so_far = jnp.cumsum(stop & (guidance.progress[1:] > progress))
    number = jnp.arange(1, count + 1)
    last = guidance.progress.shape[0] - 1
    index = jnp.argmax(so_far >= number[:, None], axis=1)
    index = jnp.where(number <= so_far[-1], index, last)
    after = jnp.minimum(index + 1, last)
    return (
        guidance.position[index],
        guidance.rotation[index],
        guidance.gripper[after],
        guidance.progress[index],
    )
