"""Tasks that only demonstrations have."""

import pytest

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation.evaluate import suite_tasks
from bridgeact_jax.sim.tasks import PRACTICE, TASKS, WORLDS
from tests.sim.episodes import follow, started

every_practice = pytest.mark.parametrize("task", PRACTICE)


def test_no_suite_holds_practice():
    assert not PRACTICE.keys() & (TASKS | WORLDS).keys()
    assert not PRACTICE.keys() & set(suite_tasks("all"))
    with pytest.raises(UsageError, match="tap_block"):
        suite_tasks("tap_block")


@every_practice
@pytest.mark.parametrize("episode", range(3))
def test_a_perfect_plan_taps(task, episode):
    env = started(task, episode)
    assert env.layout["thing"].colour in env.instruction
    follow(env, env.waypoints())
    assert env.success and env.subgoals == {"tapped": True}


@every_practice
def test_hovering_is_no_tap(task):
    env = started(task)
    plan = env.waypoints()
    position = plan.position.copy()
    position[1:, 2] += 0.02
    follow(env, plan._replace(position=position))
    assert not env.success and not env.subgoals["tapped"]


@every_practice
def test_tapping_the_twin_is_the_wrong_object(task):
    env = started(task)
    plan = env.waypoints()
    position = plan.position.copy()
    position[1:, :2] += (env.world.position("twin") - env.world.position("thing"))[:2]
    position[1:, 2] += env.world.top("twin") - env.world.top("thing")
    follow(env, plan._replace(position=position))
    assert not env.success and env.failure_kind == "wrong_object"
