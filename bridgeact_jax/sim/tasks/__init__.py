"""The suite, every task by name; and what is not part of it: practice, worlds that are read."""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.sim.objects import Box, Post
from bridgeact_jax.sim.tasks.base import Task
from bridgeact_jax.sim.tasks.blocks import StackThree, StackTwo
from bridgeact_jax.sim.tasks.math_matching import MathMatching
from bridgeact_jax.sim.tasks.mechanisms import InsertPeg, OpenDrawer, PressButton, PutInDrawer
from bridgeact_jax.sim.tasks.practice import Tap
from bridgeact_jax.sim.tasks.reading import OPEN, REWORDED, TRAIN
from bridgeact_jax.sim.tasks.short import Lift, PushIntoBay, Reach
from bridgeact_jax.sim.tasks.toy_placement import ToyPlacement
from bridgeact_jax.sim.tasks.trays import PickAndPlace, SortThree, SwapTwo

TASKS: dict[str, Task] = {
    task.name: task()
    for task in (
        Reach, Lift, PushIntoBay, PressButton,
        PickAndPlace, StackTwo, OpenDrawer, InsertPeg,
        StackThree, PutInDrawer, SortThree, SwapTwo,
    )
}
PRACTICE: dict[str, Task] = {
    task.name: task for task in (Tap("tap_block", Box()), Tap("tap_post", Post()))
}
WORLDS: dict[str, Task] = {
    task.name: task
    for world in (MathMatching, ToyPlacement)
    for task in map(world, (TRAIN, OPEN, REWORDED))
}
HELD_OUT = tuple(name for name, task in TASKS.items() if task.held_out)


def find_task(name: str) -> Task:
    """The task called `name`, or a `UsageError` that names the nearest one."""
    known = TASKS | PRACTICE | WORLDS
    if name not in known:
        raise UsageError(f"unknown task '{name}': {nearest(name, known)}")
    return known[name]
