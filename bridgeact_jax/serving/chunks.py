"""Executing action chunks on the robot's side: hold, blend, stop. Pure NumPy.

A chunk is (H, 8): position m, rotation wxyz, gripper, 1 = open. Row h is to be commanded
h * `PERIOD` after the observation it answers, and reached one `PERIOD` later. All times are seconds
of one monotone clock, the robot's.
"""

from typing import NamedTuple

import numpy as np

from bridgeact_jax.serving.limiter import PERIOD
from bridgeact_jax.serving.quaternions import slerp

_TOUCHING = 1e-6  # of a period: a time that is a row's


class Execution(NamedTuple):
    """What is being commanded; made by `begin`, `receive` and `stop`.

    Attributes:
      rows: (R, 8), the first commanded at `start`.
      fading: (F, 8) what was being commanded when the chunk came, from `received` on.
      blend: seconds over which the one gives way to the other.
      stopped: nothing is taken any more.
    """

    rows: np.ndarray
    start: float
    fading: np.ndarray
    received: float
    blend: float = 0.0
    stopped: bool = False


def begin(pose: np.ndarray) -> Execution:
    """Holding `pose` (8,) until a chunk comes."""
    row = np.asarray(pose, np.float32)[None]
    return Execution(row, -np.inf, row, -np.inf)


def receive(
    execution: Execution, actions: np.ndarray, observed: float, now: float, *, blend: float = 0.0
) -> Execution:
    """The execution with a chunk (H, 8) that answers an observation of time `observed`.

    What was commanded so far fades over `blend` seconds from `now`; the gripper follows the new
    chunk at once. Quaternions get the signs by which each is near the one before. A chunk older
    than the one being executed, or one that comes after `stop`, changes nothing. Raises ValueError
    for a chunk of another shape or with numbers not finite.
    """
    actions = np.asarray(actions, np.float32)
    if actions.ndim != 2 or actions.shape[1] != 8 or not len(actions):
        raise ValueError(f"a chunk is {actions.shape}: must be (rows, 8)")
    if not np.isfinite(actions).all():
        raise ValueError("a chunk has a number that is not finite")
    if execution.stopped or observed < execution.start:
        return execution
    steps = int(np.ceil(blend / PERIOD)) + 1
    fading = np.stack([command(execution, now + PERIOD * step) for step in range(steps)])
    return Execution(_continuous(fading[0, 3:7], actions), observed, fading, now, blend)


def command(execution: Execution, now: float) -> np.ndarray:
    """(8,) float32 to command now; after the last row that row, again and again."""
    row = _at(execution.rows, now - execution.start)
    since = now - execution.received
    if since >= execution.blend:
        return row
    mixed = _between(_at(execution.fading, since), row, max(since, 0.0) / execution.blend)
    mixed[7] = row[7]
    return mixed


def stop(execution: Execution, now: float) -> Execution:
    """Holding what was commanded at `now`, whatever comes; `begin` goes on from there."""
    return begin(command(execution, now))._replace(stopped=True)


def holding(execution: Execution, now: float) -> bool:
    """Whether there is nothing left to execute."""
    rows_ago = (now - execution.start) / PERIOD - (len(execution.rows) - 1)
    return execution.stopped or rows_ago > _TOUCHING


def _continuous(before: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The chunk with its quaternions' signs chosen, the first after the quaternion `before`."""
    quaternions = np.concatenate([before[None], actions[:, 3:7]])
    flips = np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0
    signs = np.cumprod(np.where(flips, np.float32(-1), np.float32(1)))
    return np.concatenate([actions[:, :3], signs[:, None] * actions[:, 3:7], actions[:, 7:]], 1)


def _at(rows: np.ndarray, since: float) -> np.ndarray:
    """The row `since` seconds after the first, interpolated; its gripper is the last row's due."""
    place = float(np.clip(since / PERIOD, 0, len(rows) - 1))
    if abs(place - round(place)) < _TOUCHING:
        return rows[round(place)].copy()
    whole = int(place)
    return _between(rows[whole], rows[whole + 1], place - whole)


def _between(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """The pose at `share` of the way, with the gripper of `one`."""
    position = (1 - share) * one[:3] + share * other[:3]
    turned = slerp(one[3:7], other[3:7], share)
    return np.concatenate([position, turned, one[7:]]).astype(np.float32)
