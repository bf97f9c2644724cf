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
from bridgeact_jax.sim.world import World

PRESSED, PRESS_HOLD = 0.7, 0.2  # share of the travel; seconds
PRESS_ROOM = 0.001  # metres of the tool frame, not of the fingertips, above where the cap stops
OPENED, CLOSED = 0.6, 0.1  # share of the travel
OPEN_HOLD = 0.3  # seconds
PULL_SHORT = 0.005  # metres by which the pull ends before the stop
PUSH_FURTHER = 0.008  # metres by which the push goes beyond the stop
CUBE_LATERALLY = 0.19  # metres beside the cabinet's axis: room for the hand
DRAWER_CLEARANCE = 0.008  # metres above the drawer's floor
FIT = 1.25  # of the hole's width to the peg's: about 3 mm of room on each side
INSERTED = 0.6  # share of the hole's depth
UPRIGHT = np.cos(np.radians(15.0))


class PressButton(Task):
    """Press the button of the named colour through most of its travel and hold it there."""

    name, horizon, time_limit, held_out = "press_button", "short", 10.0, True
    things = {"button": Button(), "twin": Button()}
    twins = {"twin": "button"}
    targets = ("button_cap",)
    grasps = False
    subgoals = ("touched", "pressed")

    def instruction(self, layout):
        return f"press the {layout['button'].colour} button"

    def plan(self, world, layout):
        over = tool_down(world.heading("button"))
        height = self.things["button"].cap_top(layout["button"].size[0])
        top = world.position("button") + [0, 0, height]
        pressed = top - [0, 0, Button.travel - PRESS_ROOM]
        return [
            Step(top + [0, 0, CLEARANCE], over, 0.0, loose=True),
            Step(pressed, over, 0.0),
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


class OpenDrawer(Task):
    """Pull out the drawer of the named colour; another cabinet stands beside it."""

    name, horizon, time_limit = "open_drawer", "middle", 12.0
    things = {
        "cabinet": Cabinet(low=(0.58, -0.13), high=(0.64, 0.13)),
        "twin": Cabinet(low=(0.56, -0.26), high=(0.66, 0.26)),
    }
    twins = {"twin": "cabinet"}
    targets = ("cabinet_drawer",)
    subgoals = ("pulled", "opened")

    def draw_pose(self, rng, name, placed):
        if name != "twin":
            return super().draw_pose(rng, name, placed)
        beside = placed["cabinet"]
        side = -np.sign(beside.xy[1]) * rng.uniform(0.2, 0.26)
        local = np.array([rng.uniform(-0.03, 0.03), side])
        return out_of_frame(local, beside), beside.yaw + rng.uniform(-0.1, 0.1)

    def instruction(self, layout):
        return f"open the {layout['cabinet'].colour} drawer"

    def plan(self, world, layout):
        return draw_out(world, "cabinet")

    def judge(self, world, layout, book):
        opened = {
            name: world.joint(name) >= OPENED * Cabinet.travel for name in ("cabinet", "twin")
        }
        held = {name: book.lasts(name, opened[name], OPEN_HOLD) for name in opened}
        return Verdict(
            {"pulled": "cabinet_drawer" in book.lifted, "opened": opened["cabinet"]},
            held["cabinet"], wrong_object=held["twin"],
        )


class PutInDrawer(Task):
    """Open the drawer, put the cube of the named colour into it and close it."""

    name, horizon, time_limit = "put_in_drawer", "long", 40.0
    things = {
        "cabinet": Cabinet(low=(0.58, -0.15), high=(0.63, 0.15)),
        "cube": Box(),
        "twin": Box(),
    }
    twins = {"twin": "cube"}
    targets = ("cabinet_drawer", "cube")
    subgoals = ("opened", "grasped", "inside", "closed")

    def accepts(self, layout):
        beside = [in_frame(layout[name].xy, layout["cabinet"])[1] for name in ("cube", "twin")]
        return min(np.abs(beside)) > CUBE_LATERALLY

    def instruction(self, layout):
        colour, cube = layout["cabinet"].colour, layout["cube"].colour
        return f"open the {colour} drawer, put the {cube} cube into it and close it"

    def plan(self, world, layout):
        heading = world.heading("cabinet")
        inwards = np.array([np.cos(heading), np.sin(heading)])
        middle = world.position("cabinet")[:2] - inwards * (Cabinet.depth + Cabinet.travel) / 2
        floor = self.things["cabinet"].inside(layout["cabinet"].size)[0][2] + DRAWER_CLEARANCE
        return [
            *draw_out(world, "cabinet"),
            *pick(world, "cube"),
            *put_down(world, "cube", middle, heading, on=floor),
            *push_in(world, "cabinet"),
        ]

    def judge(self, world, layout, book):
        value = world.joint("cabinet") / Cabinet.travel
        inside = self._inside(world, layout) and not world.touched("cube")
        closed = inside and value <= CLOSED
        still = world.speed("cube") < REST_SPEED
        early = book.subgoals["opened"] and not book.subgoals["inside"] and value <= CLOSED
        return Verdict(
            {
                "opened": value >= OPENED, "grasped": "cube" in book.lifted, "inside": inside,
                "closed": closed,
            },
            closed and still, wrong_order=early and book.failure() == "timeout",
        )

    def _inside(self, world, layout) -> bool:
        """Whether the cube's centre is in the drawer's room."""
        low, high = self.things["cabinet"].inside(layout["cabinet"].size)
        handle = world.position("cabinet_drawer") - world.matrix("cabinet_drawer") @ Cabinet.origin
        local = (world.position("cube") - handle) @ world.matrix("cabinet_drawer")
        return bool(np.all((local > low) & (local < high)))


class InsertPeg(Task):
    """Put the peg upright into the socket of the named colour."""

    name, horizon, time_limit = "insert_peg", "middle", 18.0
    things = {"peg": Box(half=(0.0125, 0.0125, 0.045)), "socket": Socket(), "twin": Socket()}
    twins = {"twin": "socket"}
    targets = ("peg",)
    subgoals = ("lifted", "entered", "inserted")

    def draw(self, rng):
        layout = super().draw(rng)
        holes = {}
        for name in ("socket", "twin"):
            size = layout[name].size.copy()
            size[0] = FIT * layout["peg"].size[0]
            holes[name] = replace(layout[name], size=size)
        return replace(layout, things={**layout.things, **holes})

    def instruction(self, layout):
        return f"insert the {layout['peg'].colour} peg into the {layout['socket'].colour} socket"

    def plan(self, world, layout):
        goal = layout["socket"]
        return [*pick(world, "peg"), *put_down(world, "peg", goal.xy, goal.yaw)]

    def judge(self, world, layout, book):
        depth = {name: self._depth(world, layout[name]) for name in ("socket", "twin")}
        upright = world.matrix("peg")[2, 2] > UPRIGHT
        inserted = {
            name: bool(depth[name] >= INSERTED and upright and rests(world, "peg"))
            for name in depth
        }
        return Verdict(
            {
                "lifted": "peg" in book.lifted, "entered": depth["socket"] > 0,
                "inserted": inserted["socket"],
            },
            inserted["socket"], wrong_object=inserted["twin"],
        )

    def _depth(self, world, socket) -> float:
        """Share of the hole's depth that the peg is in it; 0 where its foot is not in the hole."""
        foot = world.position("peg") - world.matrix("peg")[:, 2] * world.half("peg")[2]
        hole, _, height = socket.size
        if np.any(np.abs(in_frame(foot, socket)) > hole):
            return 0.0
        return float(np.clip(1 - foot[2] / height, 0, 1))


def draw_out(world: World, cabinet: str) -> list[Step]:
    """Grip the handle of a drawer from above, pull the drawer out, let go and rise."""
    heading = world.heading(cabinet)
    outwards = -np.array([np.cos(heading), np.sin(heading), 0.0])
    grip, over = world.position(f"{cabinet}_drawer"), tool_down(heading)
    pulled = grip + outwards * (Cabinet.travel - PULL_SHORT - world.joint(cabinet))
    return [
        Step(grip + [0, 0, CLEARANCE], over, 1.0, loose=True),
        Step(grip, over, 0.0),
        Step(pulled, over, 1.0),
        Step(pulled + [0, 0, CLEARANCE], over, 1.0),
    ]


def push_in(world: World, cabinet: str) -> list[Step]:
    """Grip the handle of a drawer that `draw_out` left open, push it in, let go and rise."""
    *_, pulled, above = draw_out(world, cabinet)
    heading = world.heading(cabinet)
    inwards = np.array([np.cos(heading), np.sin(heading), 0.0])
    shut = pulled.position + inwards * (Cabinet.travel - PULL_SHORT + PUSH_FURTHER)
    return [
        above._replace(loose=True),
        pulled._replace(gripper=0.0),
        pulled._replace(position=shut),
        above._replace(position=shut + [0, 0, CLEARANCE]),
    ]
