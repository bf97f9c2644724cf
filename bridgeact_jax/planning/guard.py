"""What is wrong with a plan, found from geometry alone before the arm moves.

A good plan may be coarse: its waypoints may lie some centimetres beside where they should, because
the expert corrects them. So every limit here is the width of that error beyond what would be
strictly right, and what is nearer than that passes. Base frame, metres, radians.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.collisions import hits
from bridgeact_jax.planning.contacts import Contacts
from bridgeact_jax.planning.sweep import (
    Curve,
    curve_of,
    guidance_of,
    matrices,
    things_of,
    unpadded,
    without_held,
)
from bridgeact_jax.planning.verdicts import Refusal, centimetres

BELOW_TABLE = 0.045  # metres
BESIDE_WORKSPACE = 0.05  # metres
MAX_LEAP = 0.7  # metres from one waypoint to the next
MAX_TILT = np.radians(110)  # of the approach direction from straight down
UNREACHED = 0.03  # metres
REACH_STEP = 0.12  # metres of the curve from one pose that is tried to the next
SPEED, SPEED_SLACK = 0.2, 2.0  # m/s along the curve; factor on what joints can do
ENOUGH = 4  # points

Reach = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Limits:
    """Where the tool may go: corners `low` and `high`, the table's height; joint speed in rad/s."""

    low: np.ndarray
    high: np.ndarray
    joint_speed: float
    table: float = 0.0


class Guard:
    """Judges plans for one arm.

    Args:
      limits: of the workspace.
      reach: (positions (S, 3), rotations (S, 4)) of a path -> what inverse kinematics leaves of
        each, (S,) metres, and its joint angles (S, n).
    """

    def __init__(self, limits: Limits, reach: Reach):
        self.limits, self._reach = limits, reach

    def judge(
        self, waypoints: Waypoints, cloud: np.ndarray, *, held: bool = False
    ) -> tuple[Refusal, ...]:
        """All that is wrong with a plan, gravest first; empty for a good one.

        Args:
          waypoints: padded or not; waypoint 0 is the tool's pose.
          cloud: (M, 3) metres.
          held: whether the hand holds something now.
        """
        plan = unpadded(waypoints)
        broken = list(self._malformed(plan))
        if broken:
            return tuple(broken)
        refusals = [*self._out_of_place(plan), *_leaps(plan), *_flipped(plan)]
        if refusals:
            return tuple(refusals)
        things = things_of(cloud, self.limits.table)
        if held:
            things = without_held(things, plan.position[0], plan.rotation[0])
        contacts = Contacts(plan, things, held, self.limits.table)
        curve = curve_of(guidance_of(plan))
        refusals += contacts.refusals()
        refusals += _collisions(curve, contacts, things)
        refusals += self._unreached(curve)
        return tuple(refusals)

    def _malformed(self, plan: Waypoints) -> Iterator[Refusal]:
        if plan.count < 2:
            yield Refusal("not_finite", "the plan has no waypoint")
            return
        finite = np.isfinite(np.column_stack(plan[:3])).all(axis=1)
        for k in np.flatnonzero(~finite):
            yield Refusal("not_finite", f"waypoint {k} has a number that is not finite")
        length = np.linalg.norm(plan.rotation, axis=1)
        for k in np.flatnonzero(finite & (np.abs(length - 1) > 0.05)):
            yield Refusal("rotation", f"the quaternion of waypoint {k} has length {length[k]:.2g}")

    def _out_of_place(self, plan: Waypoints) -> Iterator[Refusal]:
        limits = self.limits
        low = np.array(limits.low, float) - BESIDE_WORKSPACE
        high = np.array(limits.high, float) + BESIDE_WORKSPACE
        low[2] = limits.table - BELOW_TABLE
        size = np.abs(plan.position[1:]).max()
        if size > 10:
            yield Refusal(
                "workspace",
                f"coordinates up to {size:.4g} m: they look like millimetres and must be metres",
            )
            return
        for k, point in enumerate(plan.position[1:], 1):
            if point[2] < low[2]:
                reason = f"lies {centimetres(limits.table - point[2])} below the top of the table"
            elif np.any((point < low) | (point > high)):
                reason = "lies outside the arm's workspace"
            else:
                continue
            yield Refusal("workspace", f"waypoint {k} {reason}")

    def _unreached(self, curve: Curve) -> Iterator[Refusal]:
        rows = _every(curve, REACH_STEP)
        left, joints = self._reach(curve.position[rows], curve.rotation[rows])
        missed = np.flatnonzero(left > UNREACHED)
        if len(missed):
            row = rows[missed[0]]
            yield Refusal(
                "unreachable",
                f"the arm cannot reach {_place(curve, row)}: it stays "
                f"{centimetres(left[missed[0]])} short",
            )
            return
        # A joint has the time that the way takes, and at least that of one step of the path.
        seconds = np.maximum(np.diff(curve.progress[rows]), REACH_STEP) / SPEED
        fastest = np.abs(np.diff(joints, axis=0)).max(axis=1, initial=0) / seconds
        for i in np.flatnonzero(fastest > SPEED_SLACK * self.limits.joint_speed)[:1]:
            row = rows[i + 1]
            yield Refusal(
                "speed",
                f"the way to {_place(curve, row)} turns a joint at {fastest[i]:.1f} rad/s where "
                f"the arm does {self.limits.joint_speed:.1f}",
            )


def _collisions(curve: Curve, contacts: Contacts, things: np.ndarray) -> Iterator[Refusal]:
    """The first place of the curve where the hand, or what it holds, would hit a thing."""
    met = hits(curve, contacts, things)
    met &= ~met[0]  # what it is at now it may leave
    rows = np.flatnonzero(met.sum(axis=1) >= ENOUGH)
    if len(rows):
        row = rows[0]
        yield Refusal(
            "collision",
            f"the hand hits something on the way to {_place(curve, row)}",
        )


def _leaps(plan: Waypoints) -> Iterator[Refusal]:
    leap = np.linalg.norm(np.diff(plan.position, axis=0), axis=1)
    for k in np.flatnonzero(leap > MAX_LEAP):
        yield Refusal(
            "leap", f"waypoint {k + 1} lies {leap[k]:.2f} m from the one before it"
        )


def _flipped(plan: Waypoints) -> Iterator[Refusal]:
    down = -matrices(plan.rotation)[:, 2, 2]
    for k in np.flatnonzero(down[1:] < np.cos(MAX_TILT)) + 1:
        tilt = np.degrees(np.arccos(np.clip(down[k], -1, 1)))
        yield Refusal(
            "rotation", f"at waypoint {k} the tool points {tilt:.0f} degrees from straight down"
        )


def _every(curve: Curve, step: float) -> np.ndarray:
    """Rows of a curve about `step` metres apart, and all of its waypoints."""
    steps = np.diff(np.floor(curve.progress / step), prepend=-1) > 0
    return np.flatnonzero(steps | (np.diff(curve.leg, append=curve.leg[-1] + 1) > 0))


def _place(curve: Curve, row: int) -> str:
    return f"waypoint {curve.leg[row]}"
