"""The suite: every task by name."""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.sim.tasks.base import Task
from bridgeact_jax.sim.tasks.blocks import StackThree, StackTwo
from bridgeact_jax.sim.tasks.mechanisms import InsertPeg, OpenDrawer, PressButton, PutInDrawer
from bridgeact_jax.sim.tasks.short import Lift, PushIntoBay, Reach
from bridgeact_jax.sim.tasks.trays import PickAndPlace, SortThree, SwapTwo

TASKS: dict[str, Task] = {
    task.name: task()
    for task in (
        Reach, Lift, PushIntoBay, PressButton,
        PickAndPlace, StackTwo, OpenDrawer, InsertPeg,
        StackThree, PutInDrawer, SortThree, SwapTwo,
    )
}
HELD_OUT = tuple(name for name, task in TASKS.items() if task.held_out)


def find_task(name: str) -> Task:
    """The task called `name`, or a `UsageError` that names the nearest one."""
    if name not in TASKS:
        raise UsageError(f"unknown task '{name}': {nearest(name, TASKS)}")
    return TASKS[name]
