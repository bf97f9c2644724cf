"""What a task is: the things of its scene, a perfect plan, and a verdict on the physics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from bridgeact_jax.sim.book import Book, Verdict
from bridgeact_jax.sim.objects import COLOURS, Thing
from bridgeact_jax.sim.world import World

START_LOW, START_HIGH = np.array([0.40, -0.15, 0.25]), np.array([0.60, 0.15, 0.35])
START_YAW = np.radians(15.0)
TWIN_DISTANCE = (0.10, 0.15)
GAP = 0.035  # metres between the circles that two things need: room for an open hand

CLEARANCE = 0.10  # of the pre-grasp above the grasp
GRASP_BELOW_TOP = 0.015  # of the tool frame, so that the fingers end 1.9 cm below the top
LIFT_HEIGHT = 0.20
RELEASE_CLEARANCE = 0.008  # under the object when the hand lets go
REST_SPEED = 0.02  # m/s


class Step(NamedTuple):
    """One waypoint of a plan: position (3,) m, rotation (4,) wxyz, gripper 1 = open.

    A loose step lies in free space: a demonstration may bend the way to it and begin the approach
    that follows it a little beside it. Whatever touches or holds back (grasp, push, insert, draw
    out) is not loose, and the way to it is straight.
    """

    position: np.ndarray
    rotation: np.ndarray
    gripper: float
    loose: bool = False


@dataclass(frozen=True)
class Placed:
    """Where a thing is put: (x, y) m, yaw rad, its size(s) m, the name of its colour."""

    xy: np.ndarray
    yaw: float
    size: np.ndarray
    colour: str


@dataclass(frozen=True)
class Layout:
    """One episode's start: the tool's position (3,) m and yaw rad, and the things by name."""

    start: np.ndarray
    start_yaw: float
    things: Mapping[str, Placed]

    def __getitem__(self, name: str) -> Placed:
        return self.things[name]


class Task:
    """A task's fixed facts; one instance serves all environments and keeps no state.

    Attributes:
      name: as on the command line.
      horizon: "short", "middle" or "long".
      time_limit: seconds.
      held_out: kept out of the expert's training.
      things: what the scene holds, by name, in the order in which it is placed.
      twins: distractor -> thing beside which it lies; lifting a distractor is the wrong object.
      inside: thing -> thing before it, in the middle of which it begins, turned alike.
      targets: bodies that the hand has to get to, in order.
      grasps: whether closing the hand is an attempt at a grasp.
      subgoals: names of the steps to success, in order.
    """

    name: str
    horizon: str
    time_limit: float
    held_out = False
    things: Mapping[str, Thing] = {}
    twins: Mapping[str, str] = {}
    inside: Mapping[str, str] = {}
    targets: tuple[str, ...] = ()
    grasps = True
    subgoals: tuple[str, ...] = ()

    # ---- what each task says ------------------------------------------------------------------

    def instruction(self, layout: Layout) -> str:
        """What to do, in words."""
        raise NotImplementedError

    def plan(self, world: World, layout: Layout) -> list[Step]:
        """What a perfect planner would say now, as before any grasp: at most 20 steps."""
        raise NotImplementedError

    def judge(self, world: World, layout: Layout, book: Book) -> Verdict:
        """What holds after a control step."""
        raise NotImplementedError

    def accepts(self, layout: Layout) -> bool:
        """Whether a drawn layout meets the task's own conditions."""
        del layout
        return True

    # ---- what most tasks share ----------------------------------------------------------------

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the task's things to a model under construction."""
        for name, thing in self.things.items():
            thing.build(spec, name)

    def place(self, world: World, layout: Layout) -> None:
        """Put the layout's things into the world."""
        for name, placed in layout.things.items():
            self.things[name].place(world, name, placed)

    def draw(self, rng: np.random.Generator) -> Layout:
        """An episode's start: drawn anew until nothing overlaps and the task accepts it."""
        while True:
            colours = self.draw_colours(rng)
            things: dict[str, Placed] = {}
            for name, thing in self.things.items():
                size = thing.draw_size(rng)
                xy, yaw = self.draw_pose(rng, name, things)
                things[name] = Placed(xy, yaw, size, colours[name])
            start, start_yaw = rng.uniform(START_LOW, START_HIGH), rng.uniform(-1, 1) * START_YAW
            layout = Layout(start, start_yaw, things)
            if self._fits(layout) and self.accepts(layout):
                return layout

    def draw_colours(self, rng: np.random.Generator) -> dict[str, str]:
        """A colour for every thing, all different."""
        return dict(zip(self.things, rng.permutation(list(COLOURS)).tolist(), strict=False))

    def draw_pose(
        self, rng: np.random.Generator, name: str, placed: Mapping[str, Placed]
    ) -> tuple[np.ndarray, float]:
        """(x, y) m and yaw rad for a thing; `placed` holds those before it."""
        thing = self.things[name]
        if name in self.inside:
            around = placed[self.inside[name]]
            return around.xy, around.yaw + rng.uniform(-thing.turn, thing.turn)
        if name in self.twins:
            angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*TWIN_DISTANCE)
            beside = placed[self.twins[name]].xy
            xy = beside + distance * np.array([np.cos(angle), np.sin(angle)])
        else:
            xy = rng.uniform(thing.low, thing.high)
        return xy, rng.uniform(-thing.turn, thing.turn)

    def _fits(self, layout: Layout) -> bool:
        """Whether all things lie in their regions and apart; a twin may come nearer to its like."""
        names = list(layout.things)
        for i, name in enumerate(names):
            thing, here = self.things[name], layout[name]
            if np.any(here.xy < thing.low) or np.any(here.xy > thing.high):
                return False
            for other in names[:i]:
                if self.inside.get(name) == other:
                    continue
                gap = 0.0 if self.twins.get(name) == other else GAP
                there = layout[other]
                room = thing.radius(here.size) + self.things[other].radius(there.size) + gap
                if np.linalg.norm(here.xy - there.xy) < room:
                    return False
        return True


# ---- poses and pieces of plans ------------------------------------------------------------------


def tool_down(yaw: float) -> np.ndarray:
    """(4,) wxyz of the tool pointing down, its fingers opening along y turned by `yaw`."""
    return np.array([0.0, np.cos(yaw / 2), np.sin(yaw / 2), 0.0])


def in_frame(point: np.ndarray, placed: Placed) -> np.ndarray:
    """(..., 2) metres of points (..., 2 or 3) along a placed thing's own axes, from its centre."""
    cos, sin = np.cos(placed.yaw), np.sin(placed.yaw)
    return (point[..., :2] - placed.xy) @ np.array([[cos, -sin], [sin, cos]])


def out_of_frame(local: np.ndarray, placed: Placed) -> np.ndarray:
    """(2,) the point of the table that lies at `local` (2,) in a placed thing's own axes."""
    cos, sin = np.cos(placed.yaw), np.sin(placed.yaw)
    return placed.xy + np.array([[cos, -sin], [sin, cos]]) @ local


def rests(world: World, body: str) -> bool:
    """Whether a body lies still, away from the robot and let go."""
    return (
        world.gripper_open and not world.touched(body) and world.speed(body) < REST_SPEED
    )


def pick(world: World, body: str, lift: float = LIFT_HEIGHT) -> list[Step]:
    """Above a box, down to it with the hand closing, and up by `lift` metres."""
    grasp = world.position(body)
    grasp[2] = world.top(body) - GRASP_BELOW_TOP
    over = tool_down(world.yaw(body))
    return [
        Step(grasp + [0, 0, CLEARANCE], over, 1.0, loose=True),
        Step(grasp, over, 0.0),
        Step(grasp + [0, 0, lift], over, 0.0, loose=True),
    ]


def put_down(
    world: World, body: str, xy: np.ndarray, yaw: float, *, on: float = 0.0, above: float = 0.16
) -> list[Step]:
    """Over a spot with a box held as `pick` does, down to it with the hand opening, and up again.

    Args:
      xy: (2,) metres, where the box's centre goes.
      on: metres, height of what it is put on.
      above: metres of the approach and the retreat above the release.
    """
    height = world.top(body) - world.bottom(body) - GRASP_BELOW_TOP
    release = np.array([*xy, on + height + RELEASE_CLEARANCE])
    turned = tool_down(yaw)
    return [
        Step(release + [0, 0, above], turned, 0.0, loose=True),
        Step(release, turned, 1.0),
        Step(release + [0, 0, above], turned, 1.0, loose=True),
    ]
