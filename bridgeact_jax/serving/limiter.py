"""What leaves the server for a robot: chunks of poses, kept within limits. Pure NumPy.

A chunk is (H, 8) float32: position m, rotation wxyz, gripper, 1 = open; row h is the target one
`PERIOD` after row h - 1, row 0 one after the measured pose.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bridgeact_jax.serving.quaternions import angle, slerp

PERIOD = 0.1  # seconds between two rows
NORM_TOLERANCE = 1e-3  # of a quaternion that is taken as it is
_SLACK = 1e-6  # metres and radians: what rounding to float32 may add
_FINE = 1e-5


class Limits(NamedTuple):
    """`low` and `high` corners (3,) of the workspace, m, base frame; m/s, m/s^2 and rad/s."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    speed: float
    acceleration: float
    rotation_rate: float


class Start(NamedTuple):
    """Where the arm is, measured, all finite.

    position (3,) m, rotation (4,) wxyz, velocity (3,) m/s, gripper () as last commanded.
    """

    position: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    gripper: float


def limit(
    limits: Limits, start: Start, actions: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """The chunk within the limits, and {reason: number of rows that broke the limit}.

    A chunk within them is returned as it is. Otherwise each row comes as near to what is wanted as
    it may while the arm can still stop inside the workspace; a number that is not finite means to
    stay. An arm outside the workspace may only come nearer to it. A measured velocity from which no
    stop within the limits is possible counts as the largest along it from which one is.
    """
    start = _stoppable_start(limits, start)
    broken = violations(limits, start, actions)
    if not broken:
        return actions, {}
    return _limited(limits, start, np.asarray(actions, float)).astype(np.float32), broken


def hold(start: Start, rows: int) -> np.ndarray:
    """(rows, 8) chunk that stays at the measured pose."""
    pose = np.concatenate([start.position, start.rotation, [start.gripper]])
    return np.tile(pose.astype(np.float32), (rows, 1))


def violations(limits: Limits, start: Start, actions: np.ndarray) -> dict[str, int]:
    """{reason: number of rows that break the limit}, without those that none breaks."""
    rows = np.asarray(actions, float)
    position = np.vstack([start.position, rows[:, :3]])
    rotation = np.vstack([start.rotation, rows[:, 3:7]])
    low, high = np.minimum(limits.low, position[:-1]), np.maximum(limits.high, position[:-1])
    outside = (position[1:] < low - _SLACK) | (position[1:] > high + _SLACK)
    with np.errstate(invalid="ignore", over="ignore"):
        velocity = np.vstack([start.velocity, np.diff(position, axis=0) / PERIOD])
        speed = np.linalg.norm(velocity[1:], axis=1)
        change = np.linalg.norm(np.diff(velocity, axis=0), axis=1)
        norm = np.linalg.norm(rows[:, 3:7], axis=1)
        turned = angle(rotation[:-1], rotation[1:])
    found = {
        "not_finite": ~np.isfinite(rows).all(axis=1),
        "workspace": outside.any(axis=1),
        "speed": speed > limits.speed + _SLACK / PERIOD,
        "acceleration": change > limits.acceleration * PERIOD + 2 * _SLACK / PERIOD,
        "rotation": np.abs(norm - 1) > NORM_TOLERANCE,
        "rotation_rate": turned > limits.rotation_rate * PERIOD + _SLACK,
        "gripper": (rows[:, 7] < 0) | (rows[:, 7] > 1),
    }
    return {reason: int(rows.sum()) for reason, rows in found.items() if rows.any()}


def _limited(limits: Limits, start: Start, wanted: np.ndarray) -> np.ndarray:
    position, rotation, velocity, gripper = start
    rotation = rotation / np.linalg.norm(rotation)
    rows = []
    for row in wanted:
        goal = row[:3] if np.isfinite(row[:3]).all() else position
        velocity = _velocity(limits, position, velocity, (goal - position) / PERIOD)
        position = position + PERIOD * velocity
        rotation = _turned(rotation, row[3:7], limits.rotation_rate * PERIOD)
        gripper = np.clip(row[7], 0.0, 1.0) if np.isfinite(row[7]) else gripper
        rows.append(np.concatenate([position, rotation, [gripper]]))
    return np.array(rows)


def _velocity(
    limits: Limits, position: np.ndarray, before: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The velocity nearest to the wanted one that the limits allow after `before`.

    Speed and acceleration alone are two balls, to which a vector is shortened. Where the arm could
    not stop inside the workspace after that, the velocity is the last one that lets it on the way
    to it from full braking, which always does.
    """
    change = limits.acceleration * PERIOD
    velocity = _shortened(before + _shortened(wanted - before, change), limits.speed)
    braked = before - _shortened(before, change)
    more = velocity - braked
    share = _largest(lambda shares: _can_stop(limits, position, braked + shares[:, None] * more))
    return braked + share * more


def _can_stop(limits: Limits, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """(n,) whether one period at `velocity` (n, 3), then braking straight, ends in the workspace.

    The workspace reaches out to `position` where that lies outside.
    """
    steps = np.linalg.norm(velocity, axis=1) / (limits.acceleration * PERIOD)
    whole = np.floor(steps)
    braking = whole - whole * (whole + 1) / 2 / np.maximum(steps, 1)  # in periods of `velocity`
    end = position + PERIOD * (1 + braking)[:, None] * velocity
    low, high = np.minimum(limits.low, position), np.maximum(limits.high, position)
    return np.all((end >= low - 1e-12) & (end <= high + 1e-12), axis=1)


def _stoppable_start(limits: Limits, start: Start) -> Start:
    """The start, slower if from its velocity the arm could not stop within the limits."""
    before = _shortened(start.velocity, limits.speed)
    change = limits.acceleration * PERIOD

    def safe(shares: np.ndarray) -> np.ndarray:
        speed = np.linalg.norm(before) * shares
        left = shares * np.maximum(1 - change / np.maximum(speed, change), 0)
        return _can_stop(limits, start.position, left[:, None] * before)

    return start._replace(velocity=_largest(safe) * before)


def _largest(safe: Callable[[np.ndarray], np.ndarray]) -> float:
    """The largest share in [0, 1] that is safe, where 0 is; to a `_FINE` part."""
    if safe(np.ones(1))[0]:
        return 1.0
    low, width = 0.0, 1.0
    while width > _FINE:
        shares = np.linspace(low, low + width, 33)[1:-1]
        fits = np.flatnonzero(safe(shares))
        low, width = shares[fits[-1]] if len(fits) else low, width / 32
    return low


def _shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector if length <= longest else vector * (longest / length)


def _turned(before: np.ndarray, wanted: np.ndarray, most: float) -> np.ndarray:
    """`wanted` (4,) as a unit quaternion, or the rotation `most` radians on the way to it."""
    norm = np.linalg.norm(wanted)
    if not (np.isfinite(norm) and norm > 1e-6):
        return before
    wanted = wanted / norm
    turn = angle(before, wanted)
    return wanted if turn <= most else slerp(before, wanted, most / turn)
