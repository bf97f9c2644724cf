"""Toy placement: put one toy to the left or right of another, before, behind or on it."""

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from bridgeact_jax.sim.book import Verdict
from bridgeact_jax.sim.objects import BOX, COLOURS, Box, scale
from bridgeact_jax.sim.splits import is_held_out
from bridgeact_jax.sim.tasks.base import (
    CLEARANCE,
    GRASP_BELOW_TOP,
    LIFT_HEIGHT,
    RELEASE_CLEARANCE,
    Placed,
    Step,
    rests,
)
from bridgeact_jax.sim.tasks.blocks import HOLD, LEVEL, hand_off
from bridgeact_jax.sim.tasks.reading import DOWN, REWORDED, ReadLayout, ReadTask, draw_start
from bridgeact_jax.sim.tasks.wording import TOYS, TOYS_REWORDED

CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER
SHAPES = {  # the kind of geom, and its half sizes or radius and half height, metres
    "cube": (BOX, (0.0225, 0.0225, 0.0225)),
    "brick": (BOX, (0.0175, 0.035, 0.0175)),
    "can": (CYLINDER, (0.022, 0.032)),
    "disc": (CYLINDER, (0.030, 0.014)),
}
RELATIONS = {  # the way from the reference to the toy, on the table
    "left of": (0.0, -1.0),
    "right of": (0.0, 1.0),
    "in front of": (1.0, 0.0),
    "behind": (-1.0, 0.0),
    "on": (0.0, 0.0),
}
TOYS_OF_ALL = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
THINGS = ("toy", "reference", "other")
OPEN_SHARE = 0.25  # of the toys, and of the pairs of a toy and a relation

DISTANCE = 0.10  # metres at which a toy is put beside another
NEAREST, FARTHEST, ASKEW = 0.05, 0.16, 0.7  # metres; of what is across to what is along
ON = 0.03  # metres between the centres of toys on one another, at most
LOW, HIGH = np.array([0.47, -0.13]), np.array([0.60, 0.13])  # where toys begin
GOAL_LOW, GOAL_HIGH = np.array([0.44, -0.16]), np.array([0.66, 0.16])
APART, GOAL_APART = 0.115, 0.07  # metres between toys; between a toy's start and its goal
TURN = 0.15
ABOVE = 0.16  # metres of the hand above a release, before and after


@dataclass(frozen=True)
class PlacedToy(Placed):
    """A toy: `shape` is one of `SHAPES`."""

    shape: str

    @property
    def name(self) -> str:
        """As it is called: "red cube"."""
        return f"{self.colour} {self.shape}"


class Toy(Box):
    """A free toy of any of `SHAPES`. Size: as in `SHAPES`."""

    def place(self, world, name, placed):
        world.reshape(name, SHAPES[placed.shape][0])
        world.resize(name, placed.size)
        world.paint(name, COLOURS[placed.colour])
        world.put(name, np.array([*placed.xy, placed.size[-1]]), placed.yaw)


class ToyPlacement(ReadTask):
    """Put the named toy where the instruction says, and let go of it."""

    world, time_limit = "toy_placement", 16.0
    things = {name: Toy() for name in THINGS}
    twins = {"reference": "toy", "other": "toy"}
    targets = ("toy",)
    subgoals = ("lifted", "placed")

    def draw(self, rng):
        names, relation, novel = self._meant(rng)
        things: dict[str, PlacedToy] = {}
        while not things or not _fits(things, relation):
            for name, called in zip(THINGS, names, strict=True):
                colour, shape = called.split()
                size = np.array(SHAPES[shape][1]) * scale(rng)
                yaw = rng.uniform(-TURN, TURN)
                things[name] = PlacedToy(rng.uniform(LOW, HIGH), yaw, size, colour, shape)
        wordings = TOYS_REWORDED if self.split == REWORDED else TOYS
        instruction = wordings[rng.integers(len(wordings))].format(
            toy=names[0], relation=relation, reference=names[1]
        )
        from_left = sorted(things.values(), key=lambda placed: placed.xy[1])
        facts = {
            "toy": names[0],
            "relation": relation,
            "reference": names[1],
            "toys": [placed.name for placed in from_left],
            "places": {placed.name: placed.xy.tolist() for placed in from_left},
            "novel": novel,
        }
        return ReadLayout(*draw_start(rng), things, instruction, facts)

    def plan(self, world, layout):
        grasp, height = world.position("toy"), world.top("toy") - world.bottom("toy")
        grasp[2] = world.top("toy") - GRASP_BELOW_TOP
        relation = layout.facts["relation"]
        spot = world.position("reference")[:2] + DISTANCE * np.array(RELATIONS[relation])
        on = world.top("reference") if relation == "on" else 0.0
        release = np.array([*spot, on + height - GRASP_BELOW_TOP + RELEASE_CLEARANCE])
        return [
            Step(grasp + [0, 0, CLEARANCE], DOWN, 1.0, loose=True),
            Step(grasp, DOWN, 0.0),
            Step(grasp + [0, 0, LIFT_HEIGHT], DOWN, 0.0, loose=True),
            Step(release + [0, 0, ABOVE], DOWN, 0.0, loose=True),
            Step(release, DOWN, 1.0),
            Step(release + [0, 0, ABOVE], DOWN, 1.0, loose=True),
        ]

    def judge(self, world, layout, book):
        relation = layout.facts["relation"]
        floor = world.top("reference") if relation == "on" else 0.0
        level = abs(world.bottom("toy") - floor) < LEVEL
        there = related(relation, world.position("toy")[:2], world.position("reference")[:2])
        placed = bool(level and there and rests(world, "toy"))
        return Verdict(
            {"lifted": "toy" in book.lifted, "placed": placed},
            book.lasts("placed", placed, HOLD) and hand_off(world, "toy"),
        )

    def _meant(self, rng: np.random.Generator) -> tuple[list[str], str, str]:
        """The toys of `THINGS`, the relation, and what is new to a robot: "toy", "pair", "none"."""
        novel = ("toy", "pair")[rng.integers(2)] if self.open_world else "none"
        relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
        while True:
            names = rng.choice(TOYS_OF_ALL, 3, replace=False).tolist()
            fresh = [toy_is_open(name) for name in names]
            if novel == "toy":
                meant = fresh[0] and fresh[1]
            else:
                meant = not any(fresh) and pair_is_open(names[0], relation) == (novel == "pair")
            if meant:
                return names, relation, novel


def related(relation: str, toy: np.ndarray, reference: np.ndarray) -> bool:
    """Whether a toy at (2,) metres is where the relation wants it, on the table seen from above."""
    way = np.asarray(toy) - reference
    if relation == "on":
        return bool(np.linalg.norm(way) < ON)
    ahead = np.array(RELATIONS[relation])
    along, across = way @ ahead, abs(way @ ahead[::-1])
    return bool(NEAREST <= along <= FARTHEST and across <= ASKEW * along)


def toy_is_open(name: str) -> bool:
    """Whether a toy, "red cube", belongs to the open world."""
    return is_held_out(f"toy/{name}", OPEN_SHARE)


def pair_is_open(name: str, relation: str) -> bool:
    """Whether a toy and where it is to be put belong to the open world, together."""
    return is_held_out(f"pair/{name}/{relation}", OPEN_SHARE)


def _fits(things: Mapping[str, Placed], relation: str) -> bool:
    """Whether the toys stand apart and there is room for what is to be done."""
    toy, reference, other = (things[name].xy for name in THINGS)
    goal = reference + DISTANCE * np.array(RELATIONS[relation])
    pairs = ((toy, reference), (toy, other), (reference, other))
    return bool(
        min(np.linalg.norm(a - b) for a, b in pairs) >= APART
        and np.linalg.norm(goal - other) >= APART
        and np.linalg.norm(goal - toy) >= GOAL_APART
        and np.all((goal >= GOAL_LOW) & (goal <= GOAL_HIGH))
        and not related(relation, toy, reference)
    )
