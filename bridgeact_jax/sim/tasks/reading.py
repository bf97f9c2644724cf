"""What the worlds that are read have in common: their variants, and where the hand begins."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bridgeact_jax.sim.tasks.base import Layout, Task, tool_down

START_LOW, START_HIGH = np.array([0.36, -0.10, 0.26]), np.array([0.46, 0.10, 0.34])
START_TURN = np.radians(10.0)
FINGERS_FORTH = np.pi / 2  # yaw of a tool whose fingers open along the base frame's x axis
DOWN = tool_down(FINGERS_FORTH)  # (4,) wxyz of the tool wherever a plan of these worlds has it
TRAIN, OPEN, REWORDED = "train", "open", "reworded"


@dataclass(frozen=True)
class ReadLayout(Layout):
    """A layout that can be told in words.

    instruction: what to do. facts: what a reader should see, and how it was drawn, as JSON.
    """

    instruction: str
    facts: Mapping


class ReadTask(Task):
    """A world that is seen by the camera in front of the table, in one of three variants.

    `split` is "train" (what demonstrations show), "open" (what they never do; see `sim.splits`),
    or "reworded" (as open, with wordings of the instruction that are not trained either).
    """

    world: str
    horizon = "short"

    def __init__(self, split: str = TRAIN):
        self.split = split
        self.open_world = split != TRAIN
        self.name = self.world if split == TRAIN else f"{self.world}_{split}"

    def instruction(self, layout):
        return layout.instruction


def draw_start(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The tool's position (3,) m and yaw rad, out of the camera's way."""
    return rng.uniform(START_LOW, START_HIGH), FINGERS_FORTH + rng.uniform(-1, 1) * START_TURN
