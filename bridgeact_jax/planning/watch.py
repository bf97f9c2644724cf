"""What goes wrong while the arm follows a plan, noticed from what it sees and how it gets on.

Pure: a `Watch` holds the facts of one plan and of what was seen when it was made; a state goes in
and a state and the alarms, if any, come out at every control step. Base frame, metres.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.collisions import swept
from bridgeact_jax.planning.contacts import Contacts
from bridgeact_jax.planning.sweep import (
    Curve,
    curve_of,
    guidance_of,
    in_tool,
    matrices,
    things_of,
    unpadded,
)
from bridgeact_jax.planning.target import Target

KINDS = ("stalled", "target_moved", "object_lost", "path_blocked")
STALLED_STEPS, STALLED_WAY = 30, 0.005  # control steps within which less way than that is a stall
SETTLED_STEPS, EMPTY_WIDTH, EMPTY_STEPS = 8, 0.05, 3  # of a hand that should hold something
AHEAD = 0.25  # metres of the curve that are watched for what enters it
NEW = 0.025  # metres from all that is known, of a point that is new
MARGIN = 0.01  # metres of room that the hand should have
ENOUGH = 6  # new points in the way
AT_HAND, IN_HAND = 0.07, 0.06  # metres from the hand, of what it moves, and of what it carries
WORKING = 0.12  # metres from a contact within which the hand moves things
TARGET_UNTIL = 0.02  # metres of progress before a contact up to which its target is watched
END = 0.01  # metres of progress before the end from which on nothing is expected


class Seen(NamedTuple):
    """One control step.

    position (3,) m and rotation (4,) wxyz of the tool; gripper_width as measured, 0 to 1; gripper
    as commanded, 1 = open; progress along the guidance in m; cloud (M, 3) m if one has been taken
    since the step before, else None.
    """

    position: np.ndarray
    rotation: np.ndarray
    gripper_width: float
    gripper: float
    progress: float
    cloud: np.ndarray | None = None


class WatchState(NamedTuple):
    """How things stand.

    progress: metres when the arm last got on; still: control steps since; closed: control steps
    since the hand was told to close; empty: those of them in a row in which it held nothing it
    should; moved: clouds in a row in which the target was elsewhere; known: (M, 3) m, points that
    surprise nobody.
    """

    progress: float
    still: int
    closed: int
    empty: int
    moved: int
    known: np.ndarray


@dataclass(frozen=True)
class Alarm:
    """Why the arm should stop: one of `KINDS`, a sentence, and the place (3,) m if there is one."""

    kind: str
    reason: str
    where: np.ndarray | None = None


class Watch:
    """Watches one plan being followed.

    Args:
      waypoints: the plan, padded or not.
      cloud: (M, 3) metres, as seen when the plan was made.
      table: metres, height of the table's top.
      held: whether the hand held something then.
    """

    def __init__(
        self, waypoints: Waypoints, cloud: np.ndarray, *, table: float = 0.0, held: bool = False
    ):
        plan = unpadded(waypoints)
        guidance = guidance_of(plan)
        self._table, self._things = table, things_of(cloud, table)
        self._curve = curve_of(guidance)
        self._contacts = Contacts(plan, self._things, held, table)
        ends = np.append(np.flatnonzero(np.diff(self._curve.leg)), len(self._curve.leg) - 1)
        self._at = self._curve.progress[ends]  # (K,) progress at which each waypoint is reached
        # What the plan ends at is watched to the end, what it takes until the hand is there.
        until = {int(plan.count) - 1: np.inf}
        self._targets = [
            (k, until.get(k, self._at[k] - TARGET_UNTIL), Target(plan.position[k], self._things))
            for k in self._contacts.taking
        ]

    def start(self) -> WatchState:
        """The state before the first control step."""
        return WatchState(0.0, 0, 0, 0, 0, self._things)

    def step(self, state: WatchState, seen: Seen) -> tuple[WatchState, tuple[Alarm, ...]]:
        """The state after a control step, and all that is wrong, gravest first."""
        state, stalled = self._getting_on(state, seen)
        state, lost = self._holding(state, seen)
        moved = blocked = None
        if seen.cloud is not None:
            things = things_of(seen.cloud, self._table)
            state, moved = self._target(state, seen, things)
            state, blocked = self._way(state, seen, things)
        alarms = moved, blocked, lost, stalled
        return state, tuple(alarm for alarm in alarms if alarm is not None)

    def _getting_on(self, state: WatchState, seen: Seen) -> tuple[WatchState, Alarm | None]:
        over = seen.progress > self._curve.progress[-1] - END
        if over or seen.progress > state.progress + STALLED_WAY:
            return state._replace(progress=seen.progress, still=0), None
        state = state._replace(still=state.still + 1)
        if state.still < STALLED_STEPS:
            return state, None
        k = self._next(seen.progress)
        reason = f"the arm does not get on any more on its way to waypoint {k}"
        return state, Alarm("stalled", reason, np.asarray(seen.position, float))

    def _holding(self, state: WatchState, seen: Seen) -> tuple[WatchState, Alarm | None]:
        closed = 0 if is_open(seen.gripper) else state.closed + 1
        settled = closed > SETTLED_STEPS and self._contacts.carries(self._next(seen.progress))
        empty = state.empty + 1 if settled and seen.gripper_width < EMPTY_WIDTH else 0
        state = state._replace(closed=closed, empty=empty)
        if empty < EMPTY_STEPS:
            return state, None
        reason = "the hand is closed and holds nothing"
        return state, Alarm("object_lost", reason, np.asarray(seen.position, float))

    def _target(
        self, state: WatchState, seen: Seen, things: np.ndarray
    ) -> tuple[WatchState, Alarm | None]:
        k = self._next(seen.progress)
        ahead = [
            (until, target) for place, until, target in self._targets if place >= k
        ]
        if not ahead or seen.progress > ahead[0][0]:
            return state._replace(moved=0), None
        target = ahead[0][1]
        shift, sure = target.shift(things)
        if shift is None:
            return state._replace(moved=0), None
        state = state._replace(moved=state.moved + 1)
        if state.moved < 2 and not sure:
            return state, None
        reason = f"the target has moved by {100 * np.linalg.norm(shift):.0f} cm since the plan"
        return state, Alarm("target_moved", reason, target.place + np.append(shift, 0.0))

    def _way(
        self, state: WatchState, seen: Seen, things: np.ndarray
    ) -> tuple[WatchState, Alarm | None]:
        new = things
        if len(things) and len(state.known):
            new = things[cKDTree(state.known).query(things, distance_upper_bound=NEW)[0] > NEW]
        at_hand = self._at_hand(seen, new)
        state = state._replace(known=np.concatenate([state.known, new[at_hand]]))
        ahead, elsewhere = self._ahead(seen.progress), new[~at_hand]
        in_way = swept(ahead, self._contacts, elsewhere, MARGIN).any(axis=0)
        if in_way.sum() < ENOUGH:
            return state, None
        where = elsewhere[in_way].mean(axis=0)
        away = np.linalg.norm(where - seen.position)
        reason = f"something has come into the way, {100 * away:.0f} cm from the tool"
        return state, Alarm("path_blocked", reason, where)

    def _at_hand(self, seen: Seen, points: np.ndarray) -> np.ndarray:
        """(M,) which points belong to what the hand holds, moves or has just let go."""
        local = in_tool(
            points, np.asarray(seen.position, float)[None], matrices(seen.rotation)[None]
        )[0]
        apart = np.linalg.norm(self._contacts.places - seen.position, axis=1).min(initial=1)
        leg = self._next(seen.progress)
        if leg > self._contacts.pressing or leg in self._contacts.along or apart < WORKING:
            reach = AT_HAND
        elif self._contacts.carries(leg):
            reach = IN_HAND
        else:
            return np.zeros(len(points), bool)
        aside = np.linalg.norm(local[:, :2], axis=1) < reach
        return aside & (local[:, 2] < self._contacts.depth(leg) + reach)

    def _next(self, progress: float) -> int:
        return int(min(np.searchsorted(self._at, progress, side="right"), len(self._at) - 1))

    def _ahead(self, progress: float) -> Curve:
        """What is left of the curve, as far as it is watched."""
        rows = (self._curve.progress >= progress) & (self._curve.progress <= progress + AHEAD)
        return Curve(*(column[rows] for column in self._curve))
