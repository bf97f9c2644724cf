"""Whose fault a failure is, with runs that succeed by a rule instead of physics."""

import pytest

from bridgeact_jax.evaluation.attribution import attribute
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.rollouts import BATCH, Outcome
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.sim.disturbances import Disturbance

NOISY = PlannerErrors(waypoint_noise=0.03)
BLURRED = Disturbance(sensor_noise=0.01, latency=2)


def record(episode, success=False, valid=True):
    return {"task": "lift", "episode": episode, "success": success, "valid": valid}


def attributed(condition, needs, records=None):
    """Causes by episode, and the aids that were run; `needs` {episode: aid it succeeds with}."""
    records = [record(episode) for episode in needs] if records is None else records
    aids = []

    def run(jobs):
        for job in jobs:
            assert len(job.episodes) <= BATCH
            aids.append(job.condition.aid)
            yield Outcome(
                [record(e, success=needs[e] == job.condition.aid) for _, e in job.episodes],
                [], [], {},
            )

    attribute({"x": condition}, {"x": records}, run)
    return {r["episode"]: r.get("cause") for r in records}, aids


def test_the_first_aid_that_helps_names_the_cause():
    expert = Condition("expert", errors=NOISY, disturbance=BLURRED)
    needs = {0: "plan", 1: "plan_and_sight", 2: None}
    causes, aids = attributed(expert, needs)
    assert causes == {0: "planner", 1: "depth", 2: "policy"}
    assert aids == ["plan", "plan_and_sight"]
    causes, _ = attributed(Condition("spline", errors=NOISY), {0: "plan", 1: None})
    assert causes == {0: "planner", 1: "controller"}


@pytest.mark.parametrize(
    ("condition", "aids"),
    [
        (Condition("expert"), []),
        (Condition("expert", disturbance=Disturbance(latency=2)), []),
        (Condition("expert", errors=NOISY), ["plan"]),
        (Condition("expert", disturbance=BLURRED), ["plan_and_sight"]),
        (Condition("expert_blind", disturbance=BLURRED), []),
        (Condition("spline", ablation="shuffled_guidance"), ["plan"]),
        (Condition("expert", ablation="empty_cloud"), ["plan_and_sight"]),
        (Condition("spline", errors=PlannerErrors(calibration=0.01)), ["plan"]),
        (
            Condition("expert", errors=PlannerErrors(calibration=0.01)),
            ["plan", "plan_and_sight"],
        ),
    ],
)
def test_runs_that_would_change_nothing_are_left_out(condition, aids):
    assert attributed(condition, {0: None})[1] == aids


def test_an_aided_condition_has_no_such_fault_and_keeps_the_rest():
    condition = Condition(
        "expert", errors=PlannerErrors(calibration=0.01, waypoint_noise=0.1), disturbance=BLURRED
    )
    exact = Condition(**{**vars(condition), "aid": "plan"})
    assert exact.plan_errors == PlannerErrors() and exact.cloud_errors.calibration == 0.01
    clear = Condition(**{**vars(condition), "aid": "plan_and_sight"})
    assert clear.cloud_errors == PlannerErrors() and clear.world == Disturbance(latency=2)


def test_successes_and_broken_physics_are_not_attributed():
    records = [record(0, success=True), record(1, valid=False), record(2)]
    causes, _ = attributed(Condition("expert", errors=NOISY), {2: None}, records)
    assert causes == {0: None, 1: None, 2: "policy"}
