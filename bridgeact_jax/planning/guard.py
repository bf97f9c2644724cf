"""What is wrong with a plan, found from geometry alone before the arm moves.

A good plan may be coarse: its waypoints may lie some centimetres beside where they should, because
the expert corrects them. So every limit here is the width of that error beyond what would be
strictly right, and what is nearer than that passes. Base frame, metres, radians.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.sweep import (
    CLOSED,
    OPENED,
    PALM,
    Curve,
    curve_of,
    guidance_of,
    in_tool,
    inside,
    matrices,
    things_of,
    thinner,
    unpadded,
)

KINDS = (
    "not_finite", "workspace", "rotation", "leap", "gripper_order", "off_object", "collision",
    "unreachable", "speed",
)
BELOW_TABLE = 0.045  # metres
BESIDE_WORKSPACE = 0.05  # metres
MAX_LEAP = 0.7  # metres from one waypoint to the next
MAX_TILT = np.radians(110)  # of the approach direction from straight down
CLOSE_NEAR = 0.048  # metres from a thing, of a hand that closes
TOUCH_NEAR = 0.07  # metres from a thing, of the lowest waypoints of a plan that never takes hold
PUT_NEAR = 0.09  # metres from where the plan itself has put something down
BESIDE, BESIDE_NEAR = (0.09, 0.085), 0.018  # metres beside one neighbour or both; from a thing
LEVEL = 0.06  # metres of height within which waypoints are as low as the lowest
GOES_ON_DOWN = 0.01  # metres below where it closed, of a hand that has not taken hold there
STEPS_DOWN, RISES = 0.035, 0.06  # metres to the next waypoint, from the one before
INTO_THING = 0.008  # metres that a thing reaches up beside the tool, to count as gone into
SLACK, DEEP_SLACK = 0.02, 0.045  # metres by which the hand is less than it is; at contacts
AT_CONTACT = 0.08  # metres from a contact within which fingers may touch
ENOUGH = 4  # points
UNREACHED = 0.03  # metres
REACH_STEP = 0.12  # metres of the curve from one pose that is tried to the next
SPEED, SPEED_SLACK = 0.2, 2.0  # m/s along the curve; factor on what joints can do

Reach = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Limits:
    """Where the tool may go: corners `low` and `high`, the table's height; joint speed in rad/s."""

    low: np.ndarray
    high: np.ndarray
    joint_speed: float
    table: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """Why a plan is refused: one of `KINDS`, a sentence, and the place (3,) m if there is one."""

    kind: str
    reason: str
    where: np.ndarray | None = None


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
        contacts = Contacts(plan, things, held)
        curve = curve_of(guidance_of(plan))
        refusals += contacts.refusals()
        refusals += collisions(curve, contacts, things, self.limits.table)
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
                reason = f"lies {_cm(limits.table - point[2])} below the top of the table"
            elif np.any((point < low) | (point > high)):
                reason = f"at {_xyz(point)} m is outside the arm's workspace"
            else:
                continue
            yield Refusal("workspace", f"waypoint {k} {reason}", point)

    def _unreached(self, curve: Curve) -> Iterator[Refusal]:
        rows = _every(curve, REACH_STEP)
        left, joints = self._reach(curve.position[rows], curve.rotation[rows])
        missed = np.flatnonzero(left > UNREACHED)
        if len(missed):
            row = rows[missed[0]]
            yield Refusal(
                "unreachable",
                f"the arm cannot reach {_place(curve, row)}: it stays {_cm(left[missed[0]])} short",
                curve.position[row],
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
                curve.position[row],
            )


class Contacts:
    """Where a plan means to touch something, and whether there is something.

    A plan takes hold where it closes the hand and later opens it, or where it closes the hand
    without coming down any further. A hand closed in the air for good is a fist that presses or
    pushes.

    Attributes:
      places: (C, 3) metres: where the hand opens, closes, or comes down to.
      along: numbers of the waypoints to which the hand goes from one such place at the next.
      pressing: number of the waypoint that makes a fist, or of none, the number of waypoints.
      grips: numbers of the waypoints that take hold; taking: and of those that touch.
    """

    def __init__(self, plan: Waypoints, things: np.ndarray, held: bool):
        self._plan, self._things, self._held = plan, things, held
        self._tree = cKDTree(things) if len(things) else None
        opened = is_open(plan.gripper)
        self._closings = np.flatnonzero(~opened[1:] & opened[:-1]) + 1
        self._openings = np.flatnonzero(opened[1:] & ~opened[:-1]) + 1
        self._low = low_waypoints(plan.position)
        events = np.union1d(self._closings, self._openings)
        touching = np.union1d(events, self._low)
        self.places = plan.position[touching]
        self.along = touching[np.isin(touching - 1, touching)]
        fist = self._fist()
        self.pressing = int(plan.count) if fist is None else fist
        self.grips = [int(k) for k in self._closings if k != fist]
        touched = self._low[self._low > fist][:1] if fist is not None else self._low[:1]
        self.taking = self.grips or ([] if held else [int(k) for k in touched])

    def distance(self, point: np.ndarray) -> float:
        """Metres to the nearest point of a thing."""
        return float(self._tree.query(point)[0]) if self._tree else np.inf

    def refusals(self) -> list[Refusal]:
        """All that is wrong with where the hand closes, opens and comes down."""
        fist = self._fist()
        found = list(self._left_open())
        if fist is not None:
            found += self._pressing(fist)
        elif not len(self._closings) and not self._held:
            found += self._touching(0, "the plan never comes near anything: lowest at", TOUCH_NEAR)
        holding = self._held
        for k in sorted([*self._closings, *self._openings]):
            if k in self._openings:
                found += self._opening(k) if holding else []
            elif k != fist:
                found += self._closing(k)
            holding = k in self._closings and k != fist
        return found

    def _fist(self) -> int | None:
        """The waypoint that closes the hand for good before it comes down, if one does."""
        if not len(self._closings) or self._held:
            return None
        last = int(self._closings[-1])
        height = self._plan.position[last:, 2]
        for_good = not np.any(self._openings > last)
        return last if for_good and height.min() < height[0] - GOES_ON_DOWN else None

    def _steps_down(self, k: int) -> bool:
        """Whether the way goes on straight down from waypoint k."""
        if k + 1 == self._plan.count:
            return False
        way = self._plan.position[k + 1] - self._plan.position[k]
        return way[2] < -max(STEPS_DOWN, np.linalg.norm(way[:2]))

    def _came_up(self, k: int) -> bool:
        """Whether the way to waypoint k goes straight up."""
        way = self._plan.position[k] - self._plan.position[k - 1]
        return way[2] > max(RISES, np.linalg.norm(way[:2]))

    def _closing(self, k: int) -> Iterator[Refusal]:
        here = self._plan.position[k]
        distance = self.distance(here)
        put = self._plan.position[[i for i in self._openings if i < k]]
        at_put = len(put) and np.linalg.norm(put - here, axis=1).min() < PUT_NEAR
        if self._steps_down(k):
            yield Refusal(
                "gripper_order",
                f"waypoint {k} closes the gripper before the hand comes down to waypoint {k + 1}",
                here,
            )
        elif distance > CLOSE_NEAR and not at_put:
            yield Refusal(
                "off_object", f"waypoint {k} closes the gripper {_from_all(distance)}", here
            )
        else:
            yield from self._from_the_side(k)

    def _opening(self, k: int) -> Iterator[Refusal]:
        here = self._plan.position[k]
        if self._steps_down(k):
            reason = f"before the hand comes down to waypoint {k + 1}"
        elif self._came_up(k):
            reason = f"only after it has gone up from waypoint {k - 1}"
        else:
            return
        yield Refusal("gripper_order", f"waypoint {k} opens the gripper {reason}", here)

    def _pressing(self, fist: int) -> Iterator[Refusal]:
        plan, low = self._plan, self._low[self._low > fist]
        yield from self._touching(fist, "the closed hand comes down at", CLOSE_NEAR)
        for k in low:
            lifted = k + 1 < plan.count and self._came_up(k + 1)
            if lifted and self._into(plan.position[k], plan.rotation[k]):
                yield Refusal(
                    "gripper_order",
                    f"waypoint {fist} closes the gripper before the hand comes down onto "
                    f"something at waypoint {k}, and waypoint {k + 1} lifts nothing",
                    plan.position[k],
                )

    def _touching(self, after: int, what: str, near: float) -> Iterator[Refusal]:
        """Whether the lowest waypoints after number `after` are near a thing; a push is a way."""
        height = self._plan.position[:, 2]
        low = np.flatnonzero(height < height[after + 1 :].min() + LEVEL)
        low = low[low > after]
        distance = [self.distance(self._plan.position[k]) for k in low]
        k = low[np.argmin(distance)]
        if min(distance) > (near if len(low) == 1 else TOUCH_NEAR):
            yield Refusal(
                "off_object", f"{what} waypoint {k}, {_from_all(min(distance))}",
                self._plan.position[k],
            )
        else:
            for k in self._low[self._low > after]:
                yield from self._from_the_side(k)

    def _from_the_side(self, k: int) -> Iterator[Refusal]:
        """Whether waypoint k lies beside those above it that come before and after."""
        if k == 1:
            return
        place, here = self._plan.position, self._plan.position[k]
        above = [
            place[i] for i in (k - 1, k + 1)
            if i < self._plan.count and place[i, 2] > here[2] + LEVEL
        ]
        distance = self.distance(here)
        if not above or len(above) == 1 and distance < BESIDE_NEAR:
            return
        aside = np.linalg.norm((here - np.mean(above, axis=0))[:2])
        if aside > BESIDE[len(above) - 1]:
            yield Refusal(
                "off_object",
                f"waypoint {k} lies {_cm(aside)} beside the place above it where the hand comes "
                f"down, {_from_all(distance)}",
                here,
            )

    def _left_open(self) -> Iterator[Refusal]:
        """Places where the open hand goes around a thing and neither closes nor lets go there."""
        plan, opened = self._plan, is_open(self._plan.gripper)
        for k in self._low:
            if not (opened[k] and opened[k - 1]):
                continue
            way = np.linspace(0, 1, 9)[:, None] if k + 1 in self._low else np.zeros((1, 1))
            following = plan.position[min(k + 1, plan.count - 1)]
            poses = plan.position[k] + way * (following - plan.position[k])
            if any(self._into(pose, plan.rotation[k]) for pose in poses):
                yield Refusal(
                    "gripper_order",
                    f"from waypoint {k} on the hand is around something but stays open",
                    plan.position[k],
                )

    def _into(self, position: np.ndarray, rotation: np.ndarray) -> bool:
        """Whether a thing reaches up between the fingers of a hand at a pose."""
        if not len(self._things):
            return False
        local = in_tool(self._things, position[None], matrices(rotation)[None])[0]
        box = np.array([[-0.012, -0.03, -0.05], [0.012, 0.03, -INTO_THING]])
        return inside(local, box).sum() >= ENOUGH


def collisions(
    curve: Curve, contacts: Contacts, things: np.ndarray, table: float
) -> Iterator[Refusal]:
    """The first place of the curve where the hand, or what it holds, would hit a thing."""
    hit = np.flatnonzero(hits(curve, contacts, things).sum(axis=1) >= ENOUGH)
    if len(hit):
        row = hit[0]
        yield Refusal(
            "collision",
            f"the hand hits something on the way to {_place(curve, row)}, at "
            f"{_xyz(curve.position[row])} m",
            curve.position[row],
        )


def hits(curve: Curve, contacts: Contacts, things: np.ndarray) -> np.ndarray:
    """(S, M) which points the hand would hit at each sample of the curve.

    Fingers may touch at contacts, between two of them and once they are a fist.
    """
    if not len(things):
        return np.zeros((len(curve.position), 0), bool)
    local = in_tool(things, curve.position, curve.matrix)
    apart = np.linalg.norm(curve.position[:, None] - contacts.places, axis=-1)
    touching = np.isin(curve.leg, contacts.along) | (apart.min(axis=1, initial=1) < AT_CONTACT)
    touching, opened = touching[:, None], curve.opened[:, None]
    free = ~touching & (curve.leg <= contacts.pressing)[:, None]
    palm, low_palm = thinner(PALM, SLACK, DEEP_SLACK), thinner(PALM, SLACK, SLACK)
    wide, narrow = thinner(OPENED, SLACK, SLACK), thinner(CLOSED, SLACK, SLACK)
    return (
        inside(local, palm)
        | ~touching & inside(local, low_palm)
        | free & opened & inside(local, wide)
        | free & ~opened & inside(local, narrow)
    )


def low_waypoints(position: np.ndarray) -> np.ndarray:
    """Numbers of the waypoints (K, 3) that the way comes down to: no higher than both neighbours.

    The last one counts where the way to it leads down.
    """
    height = position[:, 2]
    following = np.append(height[1:], np.inf)
    return np.flatnonzero((height[1:] <= height[:-1]) & (height[1:] <= following[1:])) + 1


def _leaps(plan: Waypoints) -> Iterator[Refusal]:
    leap = np.linalg.norm(np.diff(plan.position, axis=0), axis=1)
    for k in np.flatnonzero(leap > MAX_LEAP):
        yield Refusal(
            "leap", f"waypoint {k + 1} lies {leap[k]:.2f} m from the one before it",
            plan.position[k + 1],
        )


def _flipped(plan: Waypoints) -> Iterator[Refusal]:
    down = -matrices(plan.rotation)[:, 2, 2]
    for k in np.flatnonzero(down[1:] < np.cos(MAX_TILT)) + 1:
        tilt = np.degrees(np.arccos(np.clip(down[k], -1, 1)))
        yield Refusal(
            "rotation", f"at waypoint {k} the tool points {tilt:.0f} degrees from straight down",
            plan.position[k],
        )


def _every(curve: Curve, step: float) -> np.ndarray:
    """Rows of a curve about `step` metres apart, and all of its waypoints."""
    steps = np.diff(np.floor(curve.progress / step), prepend=-1) > 0
    return np.flatnonzero(steps | (np.diff(curve.leg, append=curve.leg[-1] + 1) > 0))


def _place(curve: Curve, row: int) -> str:
    return f"waypoint {curve.leg[row]}"


def _from_all(distance: float) -> str:
    return f"{_cm(distance)} from anything seen" if np.isfinite(distance) else "and nothing is seen"


def _cm(metres: float) -> str:
    return f"{100 * metres:.0f} cm"


def _xyz(point: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.2f}" for x in point) + ")"
