"""Whose fault a failure is: it is run again with perfect waypoints, then with perfect clouds too.

If it succeeds with the exact plan, the planner is to blame; else, if it succeeds with faultless
clouds as well, depth; else the policy, which for the spline is the controller. A run that would
change nothing (the plan was exact, the policy sees no cloud) is not made.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.rollouts import Job, Outcome, jobs_of
from bridgeact_jax.evaluation.statistics import succeeded

CAUSES = ("planner", "depth", "policy", "controller")
ROUNDS = (("plan", "planner"), ("plan_and_sight", "depth"))


def attribute(
    conditions: Mapping[str, Condition],
    records: Mapping[str, list[dict]],
    run: Callable[[list[Job]], Iterable[Outcome]],
) -> None:
    """Give every valid failure in `records` ({label: records}) its `cause`, of `CAUSES`.

    `run` returns the outcomes of jobs, in order.
    """
    open_cases = {
        label: {
            (record["task"], record["episode"]): record
            for record in records[label]
            if record["valid"] and not succeeded(record)
        }
        for label in conditions
    }
    for aid, cause in ROUNDS:
        jobs, labels = [], []
        for number, (label, condition) in enumerate(conditions.items()):
            able = condition.plan_can_fail if aid == "plan" else condition.sight_can_fail
            if able:
                aided = dataclasses.replace(condition, aid=aid)
                found = jobs_of(f"{number:02d}_{aid}", aided, list(open_cases[label]))
                jobs += found
                labels += [label] * len(found)
        for label, outcome in zip(labels, run(jobs), strict=True):
            for again in outcome.records:
                if succeeded(again):
                    open_cases[label].pop((again["task"], again["episode"]))["cause"] = cause
    for label, condition in conditions.items():
        for record in open_cases[label].values():
            record["cause"] = "controller" if condition.policy == "spline" else "policy"
