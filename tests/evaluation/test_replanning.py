"""Planning anew on the way: what is left to do, and that it helps where the world does not wait."""

import jax
import numpy as np
import pytest

from bridgeact_jax.evaluation import closed_loop, replanning
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.replanning import approach, rest_of, sources_of
from bridgeact_jax.evaluation.rollouts import BATCH, jobs_of, run_job
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.watch import Alarm, Seen
from bridgeact_jax.sim.disturbances import Disturbance
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import pad

DRIFTING = Disturbance(target_speed=0.02)


def outcome(condition, episodes, task="lift"):
    (job,) = jobs_of("x", condition, [(task, episode) for episode in episodes])
    return run_job(job)


@pytest.fixture(scope="module")
def stacking():
    """Two things to pick up, one after the other; at the start."""
    env = Environment("stack_three")
    env.reset(0, 0)
    return env, pad(env.waypoints())


def events(plan):
    opened = plan.gripper[: int(plan.count)] > 0.5
    changes = np.flatnonzero(opened[1:] != opened[:-1]) + 1
    return [k for k in changes if not opened[k]], [k for k in changes if opened[k]]


def test_before_anything_is_done_the_whole_plan_is_left(stacking):
    env, plan = stacking
    rest, source = rest_of(env, plan, np.arange(24), 1, held=False)
    count = int(plan.count)
    np.testing.assert_array_equal(rest.position, plan.position[:count])
    np.testing.assert_array_equal(source, np.arange(count))


def test_what_has_been_put_down_is_not_taken_up_again(stacking):
    env, plan = stacking
    (first, second), (put, _) = events(plan)
    assert first < put < second
    for ahead, begin in ((put + 1, put + 1), (second + 1, second - 1)):
        rest, source = rest_of(env, plan, np.arange(24), ahead, held=False)
        assert source[1] == begin
        np.testing.assert_array_equal(rest.position[1], plan.position[begin])
    assert rest_of(env, plan, np.arange(24), first + 1, held=False)[1][1] == first - 1


def test_with_something_in_the_hand_the_plan_goes_on(stacking):
    env, plan = stacking
    (first, _), (put, _) = events(plan)
    shifted = plan._replace(position=plan.position + np.float32(0.01))
    rest, source = rest_of(env, shifted, np.arange(24), first + 1, held=True)
    np.testing.assert_array_equal(source[1:], np.arange(first + 1, int(plan.count)))
    np.testing.assert_array_equal(rest.position[1:], shifted.position[first + 1 : int(plan.count)])
    np.testing.assert_array_equal(rest.position[0], plan.position[0])
    assert int(rest.count) == len(rest.position) == len(source)
    at_the_end, _ = rest_of(env, shifted, np.arange(24), int(plan.count), held=True)
    assert int(at_the_end.count) == 2


@pytest.mark.parametrize(
    ("height", "aside", "again"), [(0.08, 0.03, 2), (0.08, 0.09, 1), (0.02, 0.0, 1)]
)
def test_a_hand_above_its_target_goes_on_down(height, aside, again):
    position = np.array([[aside, 0, height], [0, 0, 0.1], [0, 0, 0], [0, 0, 0.2]])
    plan = Waypoints(position, np.zeros((4, 4)), np.array([1, 1, 0, 0.0]), np.int32(4))
    assert approach(plan, 2) == again


def test_waypoints_added_on_the_way_lead_to_the_next_of_the_plan(stacking):
    _, plan = stacking
    count = int(plan.count)
    source = np.arange(count) * 10
    added = np.insert(plan.position[:count], [1, 1, 4], 7.0, axis=0)
    detoured = Waypoints(added, None, None, np.int32(len(added)))
    expected = np.insert(source, [1, 1, 4], [10, 10, 40])
    np.testing.assert_array_equal(sources_of(detoured, plan, source), expected)


def test_one_arm_gets_another_plan_and_the_others_keep_theirs(stacking):
    env, plan = stacking
    plans = jax.tree.map(lambda x: np.stack([x] * BATCH), plan)
    state = closed_loop.start(plans, np.ones(BATCH, np.float32))
    state = state._replace(progress=state.progress + 0.1)
    other = plan._replace(position=plan.position + np.float32(0.05))
    new = closed_loop.replace(state, 1, other)
    others = np.arange(BATCH) != 1
    np.testing.assert_allclose(new.progress, 0.1 * others)
    shift = np.asarray(new.guidance.position - state.guidance.position)
    np.testing.assert_allclose(shift[1], 0.05, atol=1e-6)
    assert not shift[others].any()
    for old, same in zip(state.proprioception, new.proprioception, strict=True):
        np.testing.assert_array_equal(old, same)


@pytest.mark.slow
def test_a_moving_target_is_reached_only_by_planning_anew_whatever_the_batch():
    missed = outcome(Condition("spline", disturbance=DRIFTING), range(3))
    assert not any(record["success"] for record in missed.records)
    condition = Condition("spline", disturbance=DRIFTING, replan=True)
    found = outcome(condition, range(3))
    assert sum(record["success"] for record in found.records) >= 2
    for record, plans, commands in zip(
        found.records, found.plans, found.commands, strict=True
    ):
        alarms = record["planning"]["alarms"]
        assert sum(alarms.values()) == len(plans) - 1 >= 1 and "target_moved" in alarms
        for step, plan in plans[1:]:
            held, before = commands[step - 1], commands[step - replanning.STAND - 1]
            assert held[7] == before[7]
            np.testing.assert_allclose(held[:3], plan.position[0], atol=0.02)
    (alone,) = outcome(condition, [2]).commands
    np.testing.assert_array_equal(alone, found.commands[2])


class Nervous:
    """A watch that is alarmed at the tenth control step of each plan."""

    kind = "target_moved"

    def __init__(self, *_, **__):
        pass

    def start(self):
        return 0

    def step(self, state, seen):
        return state + 1, (Alarm(self.kind, "no reason", np.zeros(3)),) * (state == 9)


def test_an_arm_plans_anew_a_few_times_and_then_goes_on(monkeypatch):
    monkeypatch.setattr(replanning, "Watch", Nervous)
    (calm,) = outcome(Condition("spline"), [0], "reach").records
    found = outcome(Condition("spline", replan=True), [0], "reach")
    assert found.records[0]["success"] and "planning" not in calm
    assert 1 <= len(found.plans[0]) - 1 <= replanning.MOST


class Twice(Nervous):
    """A watch with two alarms at once."""

    def step(self, state, seen):
        kinds = "target_moved", "path_blocked"
        return state, tuple(Alarm(kind, "no reason", seen.position) for kind in kinds)


def test_an_alarm_that_is_let_be_hides_none(stacking, monkeypatch):
    monkeypatch.setattr(replanning, "Watch", Twice)
    _, plan = stacking
    course = replanning._Course(plan, np.zeros((1, 3)))
    seen = Seen(plan.position[0], plan.rotation[0], 1.0, 1.0, 0.0)
    for near, replans, heeded in (
        (0.0, 0, "target_moved"), (0.15, 0, "path_blocked"), (0.0, replanning.MOST, "path_blocked")
    ):  # fmt: skip
        course.replans = replans
        assert course.alarmed(seen, near) and course.alarm.kind == heeded


def test_an_arm_that_finds_no_way_stops_for_good(monkeypatch):
    monkeypatch.setattr(replanning, "Watch", Nervous)
    monkeypatch.setattr(Nervous, "kind", "path_blocked")
    monkeypatch.setattr(replanning, "detour", lambda *_, **__: None)
    found = outcome(Condition("spline", replan=True), [0], "reach")
    (record,) = found.records
    assert record["failure_kind"] == "refused" and len(found.commands[0]) == 10 + replanning.STAND
    assert record["planning"]["alarms"] == {"path_blocked": 1}
