"""Towers of blocks, and what all tasks with free blocks share: carrying, and when it is done."""

import numpy as np

from bridgeact_jax.sim.book import LIFTED, Verdict
from bridgeact_jax.sim.objects import Box
from bridgeact_jax.sim.tasks.base import GRASP_BELOW_TOP, Step, Task, rests, tool_down
from bridgeact_jax.sim.world import World

LEVEL = 0.004  # metres by which a block's lowest corner may miss what it stands on
HOLD = 0.5  # seconds that the end of a task has to last
NOTICED = 0.3  # seconds after which a mistake counts
HAND_OFF = 0.035  # metres at least between the tool and a block that has been put down

TRAVEL = 0.05  # metres of the open hand above all that stands, on its way
CARRY = 0.03  # metres of a held block's underside above all that stands
DROP = 0.002  # metres under a block when the hand lets go
RETREAT = 0.08  # metres by which the hand then rises
TOWER_DISTANCE = 0.16  # metres from a tower within which the hand (20 cm wide) finds no room


class StackTwo(Task):
    """Put one block on another; a third lies beside. Taking the lower one is the wrong order."""

    name, horizon, time_limit, held_out = "stack_two", "middle", 16.0, True
    things = {"lower": Box(), "upper": Box(), "twin": Box()}
    twins = {"twin": "upper"}
    targets = ("upper",)
    subgoals = ("lifted", "stacked")

    def instruction(self, layout):
        return f"put the {layout['upper'].colour} block on the {layout['lower'].colour} block"

    def plan(self, world, layout):
        return _tower(world, ("lower", "upper"))

    def judge(self, world, layout, book):
        let_go, height = rests(world, "upper"), world.bottom("lower")
        stacked = let_go and stands_on(world, "upper", "lower") and height < LEVEL
        misled = let_go and stands_on(world, "upper", "twin")
        return Verdict(
            {"lifted": "upper" in book.lifted, "stacked": stacked},
            book.lasts("stacked", stacked, HOLD) and hand_off(world, "upper"),
            wrong_object=book.lasts("misled", misled, NOTICED),
            wrong_order=book.lasts("taken", height >= LIFTED, NOTICED),
        )


class StackThree(Task):
    """Build a tower of three blocks, from the bottom up, in the named order of colours."""

    name, horizon, time_limit = "stack_three", "long", 32.0
    things = {"bottom": Box(), "middle": Box(), "top": Box()}
    targets = ("middle", "top")
    subgoals = ("middle_lifted", "middle_on_bottom", "top_lifted", "top_on_middle")

    def instruction(self, layout):
        bottom, middle, top = (layout[name].colour for name in self.things)
        return f"put the {middle} block on the {bottom} block and the {top} block on top"

    def accepts(self, layout):
        between = layout["bottom"].xy - layout["top"].xy
        return bool(np.linalg.norm(between) >= TOWER_DISTANCE)

    def plan(self, world, layout):
        return _tower(world, tuple(self.things))

    def judge(self, world, layout, book):
        middle = stands_on(world, "middle", "bottom")
        top = stands_on(world, "top", "middle")
        middle_let_go, top_let_go = rests(world, "middle"), rests(world, "top")
        height = world.bottom("bottom")
        tower = middle and middle_let_go and top and top_let_go and height < LEVEL
        early = top_let_go and not middle and "middle" not in book.lifted
        wrong = (
            height >= LIFTED
            or middle_let_go and stands_on(world, "middle", "top")
            or early and (top or stands_on(world, "top", "bottom"))
        )
        return Verdict(
            {
                "middle_lifted": "middle" in book.lifted,
                "middle_on_bottom": middle and middle_let_go,
                "top_lifted": "top" in book.lifted,
                "top_on_middle": tower,
            },
            book.lasts("tower", tower, HOLD) and hand_off(world, "top"),
            wrong_order=book.lasts("wrong", wrong, NOTICED),
        )


def stands_on(world: World, upper: str, lower: str) -> bool:
    """Whether a block lies flat on another, its centre above the other's top."""
    aside = np.linalg.norm((world.position(upper) - world.position(lower))[:2])
    return bool(
        abs(world.bottom(upper) - world.top(lower)) < LEVEL
        and aside < world.half(lower).min()
        and world.touching(upper, lower)
    )


def _tower(world: World, blocks: tuple[str, ...]) -> list[Step]:
    """Steps that put each block on the one before it."""
    goal, yaw = world.position(blocks[0])[:2], world.yaw(blocks[0])
    steps, height = [], world.top(blocks[0])
    for block in blocks[1:]:
        tallest = max(height, *(world.top(name) for name in blocks))
        steps += carry(world, block, goal, yaw, on=height, over=tallest)
        height += world.top(block) - world.bottom(block)
    return steps


# ---- carrying -----------------------------------------------------------------------------------


def hand_off(world: World, *blocks: str) -> bool:
    """Whether the hand has drawn back from the blocks."""
    return all(np.linalg.norm(world.tool - world.position(block)) > HAND_OFF for block in blocks)


def carry(
    world: World, block: str, xy: np.ndarray, yaw: float, *, over: float, on: float = 0.0,
    start: tuple[np.ndarray, float] | None = None,
) -> list[Step]:
    """Six steps that fetch a block and put it down; all travelling is above what stands.

    Args:
      xy: (2,) metres, where the block's centre goes.
      yaw: radians that it has there.
      over: metres, height of the tallest thing that stands.
      on: metres, height of what the block is put on.
      start: its (x, y) m and yaw rad on the table by then, if not those of now.
    """
    place, turn = start or (world.position(block)[:2], world.yaw(block))
    grip = world.top(block) - world.bottom(block) - GRASP_BELOW_TOP  # above the block's underside
    free, held = over + TRAVEL, over + CARRY + grip
    there, back = tool_down(turn), tool_down(yaw)

    def at(spot: np.ndarray, height: float) -> np.ndarray:
        return np.array([*spot, height])

    return [
        Step(at(place, free), there, 1.0, loose=True),
        Step(at(place, grip), there, 0.0),
        Step(at(place, held), there, 0.0),
        Step(at(xy, max(held, on + grip + CARRY)), back, 0.0, loose=True),
        Step(at(xy, on + grip + DROP), back, 1.0),
        Step(at(xy, max(free, on + grip + RETREAT)), back, 1.0),
    ]
