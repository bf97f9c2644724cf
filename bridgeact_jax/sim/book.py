"""The book of an episode: sub-goals reached, what the hand did to the targets, why it failed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bridgeact_jax.sim.world import World

LIFTED = 0.03  # metres that a free body rises off its rest with the robot touching it
MOVED = 0.02  # metres that a body on a joint is moved, or a pushed one shifted
NEAR = 0.06  # metres of the tool from a target's frame
LOST_AFTER = 0.2  # seconds untouched although the hand is told to hold

FAILURES = (
    "did_not_reach", "missed_grasp", "misplaced", "wrong_object", "dropped", "wrong_order",
    "timeout", "unsafe", "not_finite", "diverged", "no_plan", "refused",
)  # the last two are the planner's, and the guard's


class Verdict(NamedTuple):
    """What holds now: sub-goals by name, success, and the two mistakes only a task can see."""

    subgoals: Mapping[str, bool]
    success: bool
    wrong_object: bool = False
    wrong_order: bool = False


class Book:
    """Follows one episode of any task.

    The hand's phase is `idle`, `closed` or `holding`. Letting go of a free body, losing a body or
    opening after nothing was taken (beside the nearest target) is a mistake with that target, until
    a new sub-goal is reached with it in the hand or just let go; so is the wrong order. Of several
    the first counts.
    """

    def __init__(
        self, world: World, *, targets: Sequence[str], distractors: Sequence[str],
        subgoals: Sequence[str], grasps: bool, period: float,
    ):
        """`period` is the seconds between calls of `watch`."""
        self.subgoals = dict.fromkeys(subgoals, False)
        self.lifted: set[str] = set()  # targets, and distractors, ever lifted
        self.success = self.wrong_object = self.reached = False
        self._targets, self._distractors = tuple(targets), tuple(distractors)
        self._grasps, self._period = grasps, period
        self._phase, self._held = "idle", None
        self._mistakes: dict[str | None, str] = {}  # by target, in the order of their making
        self._rest = {name: world.position(name) for name in (*targets, *distractors)}
        self._start = dict(self._rest)
        self._shifted = False
        self._since: dict[str, float] = {}

    def lasts(self, key: str, condition: bool, seconds: float) -> bool:
        """Whether `condition`, asked for once every step, has held for that long."""
        held = self._since.get(key, 0.0) + self._period if condition else 0.0
        self._since[key] = held
        return held >= seconds - 1e-9

    def watch(self, world: World) -> None:
        """Take note of what the hand has done in a control step."""
        taken = [name for name in self._rest if self._takes(world, name)]
        self.lifted |= set(taken)
        self.wrong_object |= any(name in self.lifted for name in self._distractors)
        for name in self._targets:
            near = np.linalg.norm(world.tool - world.position(name)) < NEAR
            self.reached |= bool(near) or world.touched(name)
            shift = np.linalg.norm(world.position(name) - self._start[name])
            self._shifted |= bool(shift > MOVED)
        self._follow_hand(world, [name for name in taken if name in self._targets])

    def record(self, verdict: Verdict) -> None:
        """Take over what the task says of the same step."""
        holding = [name for name, holds in verdict.subgoals.items() if holds]
        new = {name: True for name in holding if not self.subgoals[name]}
        self.subgoals |= new
        if new:
            self._mistakes.pop(self._held, None)
        self.success = bool(verdict.success)
        self.wrong_object |= bool(verdict.wrong_object)
        if verdict.wrong_order:
            self._mistakes[self._held], self.reached = "wrong_order", True

    def failure(self) -> str:
        """The kind of failure, should the episode end here without success."""
        if self.wrong_object:
            return "wrong_object"
        if not self.reached:
            return "did_not_reach"
        if self._mistakes:
            return next(iter(self._mistakes.values()))
        if not self._grasps and self._shifted:
            return "misplaced"
        if self._phase == "closed" and self._grasps:
            return "missed_grasp"
        return "timeout"

    def _takes(self, world: World, name: str) -> bool:
        """Whether the robot has a body off its rest; an untouched body's rest is where it is."""
        position = world.position(name)
        if not world.touched(name):
            self._rest[name] = position
            return False
        if world.is_free(name):
            return bool(position[2] - self._rest[name][2] >= LIFTED)
        return bool(np.linalg.norm(position - self._rest[name]) >= MOVED)

    def _follow_hand(self, world: World, taken: list[str]) -> None:
        if world.gripper_open:
            if self._phase == "holding" and world.is_free(self._held):
                self._mistakes.setdefault(self._held, "misplaced")
            elif self._phase == "closed" and self._grasps:
                self._mistakes.setdefault(self._held, "missed_grasp")
            self._phase = "idle"
        elif taken and self._phase != "holding":
            self._phase, self._held = "holding", taken[0]
        elif self._phase == "idle":
            self._phase = "closed"
            self._held = min(
                self._targets, key=lambda name: np.linalg.norm(world.tool - world.position(name))
            )
        away = self._phase == "holding" and not world.touched(self._held)
        if self.lasts("lost", away, LOST_AFTER):
            self._mistakes.setdefault(self._held, "dropped")
            self._phase = "closed"
