"""The expert that comes with the package."""

import jax
import pytest

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.rollouts import Job, run_job
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.training.checkpoint import load_expert
from bridgeact_jax.training.exported import WEIGHTS, shipped_expert


def test_it_is_small_and_loads():
    config, _, params, _ = load_expert(shipped_expert())
    assert config.use_cloud
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 4e6
    assert (shipped_expert() / WEIGHTS).stat().st_size < 8e6


@pytest.mark.slow
def test_it_lifts_by_plans_that_are_two_centimetres_wrong():
    condition = Condition(
        "expert", str(shipped_expert()), errors=PlannerErrors(waypoint_noise=0.02)
    )
    job = Job("lift", "lift", condition, tuple(("lift", episode) for episode in range(6)))
    assert sum(record["success"] for record in run_job(job).records) >= 5
