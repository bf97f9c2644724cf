"""Tasks with trays and bins: picking and placing, sorting, swapping."""

import numpy as np

from bridgeact_jax.sim.book import Verdict
from bridgeact_jax.sim.objects import COLOURS, Bin, Box
from bridgeact_jax.sim.tasks.base import GAP, Placed, Task, in_frame, pick, put_down, rests
from bridgeact_jax.sim.tasks.blocks import HOLD, LEVEL, NOTICED, carry, hand_off
from bridgeact_jax.sim.world import World


class Tray(Bin):
    """A low bin. An open hand passes above its rims, so that it needs no room around it."""

    thickness = 0.006

    def __init__(self, **region):
        super().__init__((0.040, 0.040), 0.015, turn=0.35, **region)

    def radius(self, size):
        return super().radius(size) - GAP / 2


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
            book.lasts("placed", placed, HOLD) and hand_off(world, "cube"),
        )


class SortThree(Task):
    """Put three blocks each into the tray of its colour, in any order.

    A block let go in the tray of another colour is the wrong object there; one let go beside the
    trays is misplaced.
    """

    name, horizon, time_limit, held_out = "sort_three", "long", 45.0, True
    blocks = {"block_1": "tray_1", "block_2": "tray_2", "block_3": "tray_3"}
    things = {tray: Tray() for tray in blocks.values()} | {block: Box() for block in blocks}
    targets = tuple(blocks)
    subgoals = (
        "one_lifted", "one_sorted", "two_lifted", "two_sorted", "three_lifted", "three_sorted"
    )

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
        reached = [count >= n for n in (1, 2, 3) for count in (len(book.lifted), right)]
        return Verdict(
            dict(zip(self.subgoals, reached, strict=True)),
            book.lasts("sorted", right == 3, HOLD) and hand_off(world, *self.blocks),
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
            book.lasts("swapped", len(swapped) == 2, HOLD) and hand_off(world, *self.blocks),
        )


def stands_in(world: World, block: str, tray: Placed) -> bool:
    """Whether a block stands on the table within the rims of a tray."""
    local = np.abs(in_frame(world.corners(block), tray))
    return bool(np.all(local < tray.size[:2]) and world.bottom(block) < LEVEL)
