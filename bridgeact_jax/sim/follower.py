"""Following a guidance curve by the clock: the spline baseline and the scripted expert."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bridgeact_jax.geometry import guidance as geometry
from bridgeact_jax.geometry.guidance import Guidance, Waypoints

MAX_ACCELERATION = 0.5  # m/s^2 of progress
PADDED_WAYPOINTS = 24


def time_guidance(
    guidance: Guidance, *, speed: float = 0.2, hz: float = 10.0, settle: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets along the curve at a steady progress speed.

    Progress starts and stops smoothly at both ends and at every gripper event; there the command
    flips once the arm has arrived and the arm stands still for `settle` seconds.

    Args:
      guidance: the curve.
      speed: metres of progress a second.
      hz: targets a second.
      settle: seconds of standing at each gripper event.

    Returns:
      position (T, 3) m, rotation (T, 4) wxyz and gripper (T,), T >= 1, to command at times
      0, 1/hz, ...: row i is where to be 1/hz after that, so the start itself is no row.
    """
    progress = np.asarray(guidance.progress, np.float64)
    opened = geometry.is_open(np.asarray(guidance.gripper))
    events = np.flatnonzero(opened[1:] != opened[:-1])
    # Each stretch runs from the end of an event to the start of the next.
    starts = [0.0, *progress[events + 1]]
    ends = [*progress[events], progress[-1]]
    pieces = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if i > 0:
            pieces.append(np.full(max(round(settle * hz), 1), start))
        pieces.append(start + _smooth_distances(end - start, speed, 1.0 / hz))
    along = np.concatenate(pieces)
    if not len(along):
        along = progress[-1:]
    position, rotation, gripper = _sample(guidance, along)
    return position, rotation, gripper


def pad(waypoints: Waypoints, capacity: int = PADDED_WAYPOINTS) -> Waypoints:
    """The same plan in arrays of `capacity` rows, so that plans of any length compile once."""
    rows = np.minimum(np.arange(capacity), waypoints.count - 1)
    return Waypoints(
        np.asarray(waypoints.position)[rows], np.asarray(waypoints.rotation)[rows],
        np.asarray(waypoints.gripper)[rows], np.int32(waypoints.count),
    )


@functools.cache
def _jitted_build():
    return jax.jit(geometry.build_guidance)


def guidance_of(waypoints: Waypoints, capacity: int = PADDED_WAYPOINTS) -> Guidance:
    """The guidance curve of a plan with at most `capacity` waypoints, compiled once for each."""
    return _jitted_build()(pad(waypoints, capacity))


def _sample(guidance: Guidance, along: np.ndarray):
    """`geometry.sample` for any number of points, padded so that it compiles for few lengths."""
    padded = np.pad(along, (0, -len(along) % 128), mode="edge")
    values = _jitted_sample()(guidance, jnp.asarray(padded, jnp.float32))
    return tuple(np.asarray(value)[: len(along)] for value in values)


@functools.cache
def _jitted_sample():
    return jax.jit(geometry.sample)


def _smooth_distances(length: float, speed: float, period: float) -> np.ndarray:
    """Distances (n,) after each period of a trapezoidal run over `length`; the last is `length`."""
    if length <= 0:
        return np.zeros(0)
    speed = min(speed, np.sqrt(length * MAX_ACCELERATION))
    ramp = speed / MAX_ACCELERATION
    total = length / speed + ramp
    count = int(np.ceil(total / period - 1e-9))
    t = np.minimum(np.arange(1, count + 1) * period, total)
    left = total - t
    rising, falling = 0.5 * MAX_ACCELERATION * t**2, length - 0.5 * MAX_ACCELERATION * left**2
    cruise = speed * (t - ramp / 2)
    return np.where(t < ramp, rising, np.where(left < ramp, falling, cruise))
