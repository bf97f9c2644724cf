"""Where a plan means to touch things, what it has in the hand, and whether that makes sense."""

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.sweep import DEEPEST, in_tool, inside, matrices
from bridgeact_jax.planning.verdicts import Refusal, centimetres

CLOSE_NEAR = 0.048  # metres from a thing, of a hand that closes
TOUCH_NEAR = 0.07  # metres from a thing, of the lowest waypoints of a plan that never takes hold
PUT_NEAR = 0.09  # metres from where the plan itself has put something down
BESIDE, BESIDE_NEAR = (0.09, 0.085), 0.018  # metres beside one neighbour or both; from a thing
LEVEL = 0.06  # metres of height within which waypoints are as low as the lowest
GOES_ON_DOWN = 0.01  # metres below where it closed, of a hand that has not taken hold there
STEPS_DOWN, RISES = 0.035, 0.06  # metres to the next waypoint, from the one before
INTO_THING = 0.008  # metres that a thing reaches up beside the tool, to count as gone into
ENOUGH = 4  # points between the fingers


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

    def __init__(
        self, plan: Waypoints, things: np.ndarray, held: bool = False, table: float = 0.0
    ):
        self._plan, self._things, self._held, self._table = plan, things, held, table
        self._tree = cKDTree(things) if len(things) else None
        self._opened = opened = np.asarray(is_open(plan.gripper))
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

    def carries(self, leg: int) -> bool:
        """Whether the plan has something in the hand on the way to waypoint `leg`."""
        if self._opened[leg - 1]:
            return False
        opened = np.flatnonzero(self._opened[:leg])
        since = opened[-1] if len(opened) else -1
        return any(since < k < leg for k in self.grips) or (self._held and since < 0)

    def depth(self, leg: int) -> float:
        """Metres that what it has in the hand then may reach below the tool; 0 for nothing."""
        if not self.carries(leg):
            return 0.0
        taken = max((k for k in self.grips if k < leg), default=0)
        return float(np.clip(self._plan.position[taken, 2] - self._table, 0.0, DEEPEST))

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
            )
        elif distance > CLOSE_NEAR and not at_put:
            yield Refusal(
                "off_object", f"waypoint {k} closes the gripper {_from_all(distance)}"
            )
        else:
            yield from self._from_the_side(k)

    def _opening(self, k: int) -> Iterator[Refusal]:
        if self._steps_down(k):
            reason = f"before the hand comes down to waypoint {k + 1}"
        elif self._came_up(k):
            reason = f"only after it has gone up from waypoint {k - 1}"
        else:
            return
        yield Refusal("gripper_order", f"waypoint {k} opens the gripper {reason}")

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
                "off_object", f"{what} waypoint {k}, {_from_all(min(distance))}"
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
                f"waypoint {k} lies {centimetres(aside)} beside the place above it where the "
                f"hand comes down, {_from_all(distance)}",
            )

    def _left_open(self) -> Iterator[Refusal]:
        """Places where the open hand goes around a thing and neither closes nor lets go there."""
        plan = self._plan
        for k in self._low:
            if not (self._opened[k] and self._opened[k - 1]):
                continue
            way = np.linspace(0, 1, 9)[:, None] if k + 1 in self._low else np.zeros((1, 1))
            following = plan.position[min(k + 1, plan.count - 1)]
            poses = plan.position[k] + way * (following - plan.position[k])
            if any(self._into(pose, plan.rotation[k]) for pose in poses):
                yield Refusal(
                    "gripper_order",
                    f"from waypoint {k} on the hand is around something but stays open",
                )

    def _into(self, position: np.ndarray, rotation: np.ndarray) -> bool:
        """Whether a thing reaches up between the fingers of a hand at a pose."""
        if not len(self._things):
            return False
        local = in_tool(self._things, position[None], matrices(rotation)[None])[0]
        box = np.array([[-0.012, -0.03, -0.05], [0.012, 0.03, -INTO_THING]])
        return inside(local, box).sum() >= ENOUGH


def low_waypoints(position: np.ndarray) -> np.ndarray:
    """Numbers of the waypoints (K, 3) that the way comes down to: no higher than both neighbours.

    The last one counts where the way to it leads down.
    """
    height = position[:, 2]
    following = np.append(height[1:], np.inf)
    return np.flatnonzero((height[1:] <= height[:-1]) & (height[1:] <= following[1:])) + 1


def _from_all(distance: float) -> str:
    if not np.isfinite(distance):
        return "and nothing is seen"
    return f"{centimetres(distance)} from anything seen"
