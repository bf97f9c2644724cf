"""Tasks with blocks and trays: picking, placing, stacking, sorting, swapping."""

import numpy as np

from bridgeact_jax.sim.book import LIFTED, Verdict
from bridgeact_jax.sim.objects import COLOURS, Bin, Box
from bridgeact_jax.sim.tasks.base import (
    GAP,
    GRASP_BELOW_TOP,
    Placed,
    Step,
    Task,
    in_frame,
    pick,
    put_down,
    rests,
    tool_down,
)
from bridgeact_jax.sim.world import World

LEVEL = 0.004  # metres by which a block's lowest corner may miss what it stands on
HOLD = 0.5  # seconds that the end of a task has to last
NOTICED = 0.3  # seconds after which a mistake counts

TRAVEL = 0.045  # metres of the open hand above all that stands, on its way
CARRY = 0.03  # metres of a held block's underside above all that stands
DROP = 0.002  # metres under a block when the hand lets go
TOWER_DISTANCE = 0.16  # metres from a tower within which the hand (20 cm wide) finds no room


class PickAndPlace(Task):
    """Put the cube of the named colour into the bin, which leaves it two to three centimetres."""

    name, horizon, time_limit = "pick_and_place", "middle", 16.0
    things = {"cube": Box(), "twin": Box(), "bin": Bin((0.05, 0.05), 0.025, turn=0.35)}
    twins = {"twin": "cube"}
    targets = ("cube",)
    subgoals = ("lifted", "in_bin")

    def instruction(self, layout):
        return f"put the {layout['cube'].colour} cube into the {layout['bin'].colour} bin"

    def plan(self, world, layout):
        goal = layout["bin"]
        return [*pick(world, "cube"), *put_down(world, "cube", goal.xy, goal.yaw)]

    def judge(self, world, layout, book):
        placed = stands_in(world, "cube", layout["bin"]) and rests(world, "cube")
        return Verdict(
            {"lifted": "cube" in book.lifted, "in_bin": placed},
            book.lasts("placed", placed, HOLD),
        )


# ---- towers -------------------------------------------------------------------------------------


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
        stacked = stands_on(world, "upper", "lower") and rests(world, "upper")
        taken = world.bottom("lower") >= LIFTED
        misled = stands_on(world, "upper", "twin") and rests(world, "upper")
        return Verdict(
            {"lifted": "upper" in book.lifted, "stacked": stacked},
            book.lasts("stacked", stacked and world.bottom("lower") < LEVEL, HOLD),
            wrong_object=book.lasts("misled", misled, NOTICED),
            wrong_order=book.lasts("taken", taken, NOTICED),
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
        wrong = world.bottom("bottom") >= LIFTED or any(
            stands_on(world, upper, lower) and rests(world, upper)
            for upper, lower in (("top", "bottom"), ("middle", "top"))
        )
        wrong |= top and top_let_go and not middle
        tower = middle and top and middle_let_go and top_let_go and world.bottom("bottom") < LEVEL
        return Verdict(
            {
                "middle_lifted": "middle" in book.lifted,
                "middle_on_bottom": middle and middle_let_go,
                "top_lifted": "top" in book.lifted,
                "top_on_middle": tower,
            },
            book.lasts("tower", tower, HOLD),
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


# ---- trays --------------------------------------------------------------------------------------


class Tray(Bin):
    """A low bin. An open hand passes above its rims, so that it needs no room around it."""

    thickness = 0.006

    def __init__(self, **region):
        super().__init__((0.040, 0.040), 0.015, turn=0.35, **region)

    def radius(self, size):
        return super().radius(size) - GAP / 2


class SortThree(Task):
    """Put three blocks each into the tray of its colour, in any order.

    A block let go in the tray of another colour is the wrong object there; one let go beside the
    trays is misplaced.
    """

    name, horizon, time_limit, held_out = "sort_three", "long", 45.0, True
    blocks = {"block_1": "tray_1", "block_2": "tray_2", "block_3": "tray_3"}
    things = {tray: Tray() for tray in blocks.values()} | {block: Box() for block in blocks}
    targets = tuple(blocks)
    subgoals = tuple(f"{n}_{done}" for n in (1, 2, 3) for done in ("lifted", "sorted"))

    def instruction(self, layout):
        first, second, third = (layout[name].colour for name in self.blocks)
        return (
            f"put the {first}, the {second} and the {third} block each into the tray of its colour"
        )

    def draw_colours(self, rng):
        names = rng.permutation(list(COLOURS)).tolist()
        return {
            name: colour
            for pair, colour in zip(self.blocks.items(), names, strict=False)
            for name in pair
        }

    def plan(self, world, layout):
        tallest = max(world.top(name) for name in self.blocks)
        steps = []
        for block, tray in self.blocks.items():
            goal = layout[tray]
            steps += carry(world, block, goal.xy, goal.yaw, over=tallest)
        return steps

    def judge(self, world, layout, book):
        still = [block for block in self.blocks if rests(world, block)]
        put = {
            (block, tray) for block in still for tray in self.blocks.values()
            if stands_in(world, block, layout[tray])
        }
        right = len(put & set(self.blocks.items()))
        done = {f"{n}_lifted": len(book.lifted) >= n for n in (1, 2, 3)}
        done |= {f"{n}_sorted": right >= n for n in (1, 2, 3)}
        return Verdict(
            {name: done[name] for name in self.subgoals},
            book.lasts("sorted", right == 3, HOLD),
            wrong_object=book.lasts("mixed_up", len(put) > right, NOTICED),
        )


class SwapTwo(Task):
    """Two blocks in trays change places, by way of a third tray or the table."""

    name, horizon, time_limit = "swap_two", "long", 45.0
    blocks = {"block_1": "tray_1", "block_2": "tray_2"}  # where each begins
    things = {tray: Tray() for tray in ("tray_1", "tray_2", "spare")} | {
        block: Box(turn=0.1) for block in blocks
    }
    inside = blocks
    targets = tuple(blocks)
    subgoals = ("lifted", "parked", "one_swapped", "both_swapped")

    def instruction(self, layout):
        first, second = (layout[name].colour for name in self.blocks)
        return f"swap the {first} block and the {second} block, each into the tray of the other"

    def plan(self, world, layout):
        tallest = max(world.top(name) for name in self.blocks)
        spare, one, two = (layout[name] for name in ("spare", "tray_1", "tray_2"))
        return [
            *carry(world, "block_1", spare.xy, spare.yaw, over=tallest),
            *carry(world, "block_2", one.xy, one.yaw, over=tallest),
            *carry(world, "block_1", two.xy, two.yaw, over=tallest, start=(spare.xy, spare.yaw)),
        ]

    def judge(self, world, layout, book):
        still = [block for block in self.blocks if rests(world, block)]
        home = [block for block in still if stands_in(world, block, layout[self.blocks[block]])]
        swapped = [
            block for block, tray in zip(self.blocks, ("tray_2", "tray_1"), strict=True)
            if block in still and stands_in(world, block, layout[tray])
        ]
        parked = any(
            block in book.lifted and block not in home and world.bottom(block) < LEVEL
            for block in still
        )
        return Verdict(
            {
                "lifted": bool(book.lifted),
                "parked": parked,
                "one_swapped": bool(swapped),
                "both_swapped": len(swapped) == 2,
            },
            book.lasts("swapped", len(swapped) == 2, HOLD),
        )


def stands_in(world: World, block: str, tray: Placed) -> bool:
    """Whether a block stands on the table within the rims of a tray."""
    local = np.abs(in_frame(world.corners(block), tray))
    return bool(np.all(local < tray.size[:2]) and world.bottom(block) < LEVEL)


# ---- carrying -----------------------------------------------------------------------------------


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
        Step(at(xy, max(free, on + grip + TRAVEL)), back, 1.0),
    ]
