"""Motions that demonstrations may add to those of the suite; no evaluation asks for them.

They show the expert more ways in which a plan and a scene go together: among the suite's own
demonstrations a hand that closes on nothing is always about to push.
"""

import numpy as np

from bridgeact_jax.sim.book import Verdict
from bridgeact_jax.sim.objects import Thing
from bridgeact_jax.sim.tasks.base import CLEARANCE, Step, Task, tool_down
from bridgeact_jax.sim.world import World

FINGERTIP = 0.004  # metres below the tool frame
PRESS = 0.003  # metres by which the fingers are sent into what they tap
TAP_HOLD = 0.2  # seconds


class Tap(Task):
    """Put the closed hand on the thing of the named colour from above and keep it there."""

    horizon, time_limit, grasps = "short", 8.0, False
    twins = {"twin": "thing"}
    targets = ("thing",)
    subgoals = ("tapped",)

    def __init__(self, name: str, thing: Thing):
        self.name, self.things = name, {"thing": thing, "twin": thing}

    def instruction(self, layout):
        return f"tap the {layout['thing'].colour} {self.name.removeprefix('tap_')}"

    def plan(self, world: World, layout):
        over = tool_down(world.yaw("thing"))
        top = np.array([*world.position("thing")[:2], world.top("thing")])
        return [
            Step(top + [0, 0, CLEARANCE], over, 0.0, loose=True),
            Step(top + [0, 0, FINGERTIP - PRESS], over, 0.0),
        ]

    def judge(self, world, layout, book):
        tapped = {
            name: book.lasts(name, world.touched(name), TAP_HOLD) for name in ("thing", "twin")
        }
        return Verdict(
            {"tapped": tapped["thing"]}, tapped["thing"], wrong_object=tapped["twin"]
        )
