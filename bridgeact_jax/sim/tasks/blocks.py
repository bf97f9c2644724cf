"""Tasks with cubes: picking, placing, stacking, sorting."""

import numpy as np

from bridgeact_jax.sim.book import Verdict
from bridgeact_jax.sim.objects import Bin, Box
from bridgeact_jax.sim.tasks.base import Task, in_frame, pick, put_down, rests

RIM_TOLERANCE = 0.005  # metres by which a cube in the bin may stand above its rim


class PickAndPlace(Task):
    """Put the cube of the named colour into the bin."""

    name, horizon, time_limit = "pick_and_place", "middle", 16.0
    things = {"cube": Box(), "twin": Box(), "bin": Bin(turn=0.35)}
    twins = {"twin": "cube"}
    targets = ("cube",)
    subgoals = ("lifted", "in_bin")

    def instruction(self, layout):
        return f"put the {layout['cube'].colour} cube into the {layout['bin'].colour} bin"

    def plan(self, world, layout):
        goal = layout["bin"]
        return [*pick(world, "cube"), *put_down(world, "cube", goal.xy, goal.yaw)]

    def judge(self, world, layout, book):
        goal = layout["bin"]
        inner, rim = goal.size[:2], goal.size[2]
        local = np.abs(in_frame(world.corners("cube"), goal))
        inside = np.all(local < inner) and world.top("cube") < rim + RIM_TOLERANCE
        placed = bool(inside) and rests(world, "cube")
        return Verdict({"lifted": "cube" in book.lifted, "in_bin": placed}, placed)
