"""Tasks with mechanisms: a button, a drawer, a peg and its socket."""

from dataclasses import replace

import numpy as np

from bridgeact_jax.sim.book import Verdict
from bridgeact_jax.sim.mechanisms import Button, Cabinet, Socket
from bridgeact_jax.sim.objects import Box
from bridgeact_jax.sim.tasks.base import (
    CLEARANCE,
    REST_SPEED,
    Step,
    Task,
    in_frame,
    out_of_frame,
    pick,
    put_down,
    rests,
    tool_down,
)

PRESSED, PRESS_HOLD = 0.75, 0.2  # share of the travel; seconds
PRESS_ROOM = 0.002  # of the tool frame above the base, the cap being all the way in
OPENED, CLOSED = 0.6, 0.1  # share of the travel
OPEN_HOLD = 0.3  # seconds
PULL_SHORT = 0.005  # metres by which the pull ends before the stop
PUSH_FURTHER = 0.003  # metres by which the push goes beyond the stop
CUBE_LATERALLY = 0.19  # metres beside the cabinet's axis: room for the hand
DRAWER_CLEARANCE = 0.008  # metres above the drawer's floor
PEG_CLEARANCE = (0.0025, 0.004)  # metres on each side of the peg
INSERTED = 0.6  # share of the hole's depth
UPRIGHT = np.cos(np.radians(15.0))


class PressButton(Task):
    """Press the button of the named colour through most of its travel."""

    name, horizon, time_limit, held_out = "press_button", "short", 10.0, True
    things = {"button": Button(), "twin": Button()}
    twins = {"twin": "button"}
    targets = ("button_cap",)
    grasps = False
    subgoals = ("touched", "pressed")

    def instruction(self, layout):
        return f"press the {layout['button'].colour} button"

    def plan(self, world, layout):
        placed = layout["button"]
        over = tool_down(placed.yaw)
        top = np.array([*placed.xy, Button().top(placed.size[0])])
        pressed = top - [0, 0, Button.travel - PRESS_ROOM]
        return [
            Step(top + [0, 0, CLEARANCE], over, 0.0, loose=True),
            Step(pressed, over, 0.0),
            Step(top + [0, 0, CLEARANCE], over, 0.0),
        ]

    def judge(self, world, layout, book):
        pressed = {
            name: book.lasts(name, world.joint(name) >= PRESSED * Button.travel, PRESS_HOLD)
            for name in ("button", "twin")
        }
        return Verdict(
            {"touched": world.touched("button_cap"), "pressed": pressed["button"]},
            pressed["button"], wrong_object=pressed["twin"],
        )
