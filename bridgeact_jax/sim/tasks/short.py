"""Tasks of one motion: reach a post, lift a cube, push a block into a bay."""

import numpy as np

from bridgeact_jax.sim.book import MOVED, Verdict
from bridgeact_jax.sim.objects import Bay, Box, Post
from bridgeact_jax.sim.tasks.base import (
    CLEARANCE,
    REST_SPEED,
    Step,
    Task,
    in_frame,
    out_of_frame,
    pick,
    tool_down,
)
from bridgeact_jax.sim.world import World

REACH_ABOVE_POST, REACH_TOLERANCE, REACH_HOLD = 0.03, 0.025, 0.3  # metres, metres, seconds
BEFORE_MOUTH, ASIDE, BLOCK_TURN = (0.07, 0.12), 0.02, 0.25  # metres, metres, radians
KEPT_FREE = 0.09  # metres from the bay's axis, where the twin does not lie
PUSH_HEIGHT = 0.012  # of the tool frame: the fingers end 0.8 cm above the table
FINGER_HALF = 0.0088  # metres, along the push
RUN_UP, BACK_OFF = 0.035, 0.04  # metres
TILT = 0.004  # metres by which the block may stand higher than when it lies
GOAL_DEPTH = 0.003  # metres beyond the middle of the bay
LIFT_SUCCESS, LIFT_HOLD = 0.10, 0.5  # metres, seconds


class Reach(Task):
    """Hold the tool right above the post of the named colour."""

    name, horizon, time_limit = "reach", "short", 8.0
    things = {"post": Post(), "twin": Post()}
    twins = {"twin": "post"}
    targets = ("post",)
    grasps = False
    subgoals = ("above_post",)

    def instruction(self, layout):
        return f"reach above the {layout['post'].colour} post"

    def plan(self, world, layout):
        goal, over = _above(world, "post"), tool_down(layout["post"].yaw)
        return [Step(goal + [0, 0, CLEARANCE], over, 1.0, loose=True), Step(goal, over, 1.0)]

    def judge(self, world, layout, book):
        near = {
            name: bool(np.linalg.norm(world.tool - _above(world, name)) <= REACH_TOLERANCE)
            for name in ("post", "twin")
        }
        book.reached |= near["post"]
        held = {name: book.lasts(name, near[name], REACH_HOLD) for name in near}
        return Verdict({"above_post": near["post"]}, held["post"], wrong_object=held["twin"])


def _above(world: World, post: str) -> np.ndarray:
    """(3,) the point to reach above a post."""
    return np.array([*world.position(post)[:2], world.top(post) + REACH_ABOVE_POST])


class Lift(Task):
    """Lift the cube of the named colour and hold it."""

    name, horizon, time_limit = "lift", "short", 12.0
    things = {"cube": Box(), "twin": Box()}
    twins = {"twin": "cube"}
    targets = ("cube",)
    subgoals = ("grasped", "lifted")

    def instruction(self, layout):
        return f"lift the {layout['cube'].colour} cube"

    def plan(self, world, layout):
        return pick(world, "cube")

    def judge(self, world, layout, book):
        raised = bool(world.bottom("cube") >= LIFT_SUCCESS)
        return Verdict(
            {"grasped": "cube" in book.lifted, "lifted": raised},
            book.lasts("raised", raised, LIFT_HOLD),
        )


class PushIntoBay(Task):
    """Push the flat block of the named colour between the three rims of the bay."""

    name, horizon, time_limit = "push_into_bay", "short", 16.0
    things = {
        "bay": Bay(low=(0.50, -0.20), high=(0.62, 0.20), turn=np.radians(30.0)),
        "block": Box((0.026, 0.026, 0.014), smooth=True),
        "twin": Box((0.026, 0.026, 0.014), smooth=True),
    }
    twins = {"twin": "block"}
    targets = ("block",)
    grasps = False
    subgoals = ("moved", "in_mouth", "in_bay")

    def instruction(self, layout):
        return f"push the {layout['block'].colour} block into the {layout['bay'].colour} bay"

    def draw_pose(self, rng, name, placed):
        if name != "block":
            return super().draw_pose(rng, name, placed)
        bay = placed["bay"]
        before = bay.size[0] + rng.uniform(*BEFORE_MOUTH)
        xy = out_of_frame(np.array([-before, rng.uniform(-ASIDE, ASIDE)]), bay)
        return xy, bay.yaw + rng.uniform(-BLOCK_TURN, BLOCK_TURN)

    def accepts(self, layout):
        twin = in_frame(layout["twin"].xy, layout["bay"])
        return bool(abs(twin[1]) > KEPT_FREE)

    def plan(self, world, layout):
        bay = layout["bay"]
        block, half = world.position("block")[:2], world.half("block")[0]
        goal = out_of_frame(np.array([GOAL_DEPTH, 0.0]), bay)
        way = goal - block
        ahead = way / np.linalg.norm(way)
        push = tool_down(np.arctan2(ahead[1], ahead[0]))
        contact = half + FINGER_HALF

        def at(xy, height):
            return np.array([*xy, height])

        behind, end = block - ahead * (contact + RUN_UP), goal - ahead * contact
        away = end - ahead * BACK_OFF
        return [
            Step(at(behind, CLEARANCE), push, 0.0, loose=True),
            Step(at(behind, PUSH_HEIGHT), push, 0.0),
            Step(at(end, PUSH_HEIGHT), push, 0.0),
            Step(at(away, PUSH_HEIGHT), push, 0.0),
            Step(at(away, CLEARANCE), push, 0.0, loose=True),
        ]

    def judge(self, world, layout, book):
        bay = layout["bay"]
        local = {
            name: np.abs(in_frame(world.corners(name), bay)) - bay.size[:2]
            for name in ("block", "twin")
        }
        inside = {name: bool(np.all(beyond < 0)) for name, beyond in local.items()}
        at_rest = world.speed("block") < REST_SPEED and not world.touched("block")
        flat = world.top("block") < 2 * world.half("block")[2] + TILT
        done = inside["block"] and at_rest and flat
        moved = np.linalg.norm(world.position("block")[:2] - layout["block"].xy) > MOVED
        in_mouth = bool(np.any(np.all(local["block"] < 0, axis=1)))
        return Verdict(
            {"moved": bool(moved), "in_mouth": in_mouth, "in_bay": bool(done)}, bool(done),
            wrong_object=inside["twin"],
        )
