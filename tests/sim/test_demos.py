"""Demonstrations: a true RLDS dataset, the same whatever the number of processes."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bridgeact_jax.errors import UsageError
from bridgeact_jax.sim import demos
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.tasks import TASKS


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "rlds"
    assert demos.write_demos("all", 3, path, seed=5, workers=1) >= 0
    return tfds.builder_from_directory(path).as_data_source("train")


def test_any_prefix_is_balanced(source):
    assert len(source) == 3
    names = [episode["episode_metadata"]["task"].decode() for episode in source]
    assert names == list(TASKS)
    assert all(episode["episode_metadata"]["success"] for episode in source)


def test_steps(source):
    for episode in source:
        steps = list(episode["steps"])
        action = np.stack([step["action"] for step in steps])
        position = np.stack([step["observation"]["ee_position"] for step in steps])
        assert action.shape == (len(steps), 8)
        np.testing.assert_allclose(np.linalg.norm(action[:, 3:7], axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(action[-1], action[-2])
        # The command sent at t is where the tool is 0.1 s later, but for the tracking lag.
        assert np.linalg.norm(action[:-1, :3] - position[1:], axis=1).max() < 0.012
        assert steps[0]["observation"]["cloud"].shape == (2048, 3)
        assert steps[0]["observation"]["cloud"].dtype == np.float16
        assert [step["is_first"] for step in steps] == [True] + [False] * (len(steps) - 1)
        assert [step["is_last"] for step in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[-1]["reward"] == 1 and steps[-1]["is_terminal"]


def test_recording_is_repeatable(source):
    name = list(TASKS)[0]
    again = demos.record(Environment(name), 5, 0)
    stored = list(source[0]["steps"])
    assert len(stored) == len(again["steps"])
    for a, b in zip(stored, again["steps"], strict=True):
        np.testing.assert_array_equal(a["observation"]["cloud"], b["observation"]["cloud"])
        np.testing.assert_array_equal(a["action"], np.float32(b["action"]))


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    for workers in (1, 2):
        demos.write_demos("reach", 4, tmp_path / str(workers), seed=1, workers=workers)
    one, two = (
        tfds.builder_from_directory(tmp_path / str(n)).as_data_source("train") for n in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a["steps"], b["steps"], strict=True):
            np.testing.assert_array_equal(x["observation"]["cloud"], y["observation"]["cloud"])
            np.testing.assert_array_equal(x["action"], y["action"])


def test_variation_keeps_ends_and_events():
    env = Environment("pick_and_place")
    env.reset(0, 0)
    plan = env.waypoints()
    for number in range(50):
        varied = demos.vary(plan, np.random.default_rng(number))
        assert varied.count <= 16
        np.testing.assert_allclose(varied.position[[0, -1]], plan.position[[0, -1]])
        for waypoints in (plan, varied):
            events = np.flatnonzero(np.diff(waypoints.gripper)) + 1
            np.testing.assert_allclose(
                waypoints.position[events], plan.position[[2, 5]], atol=1e-6
            )


def test_unknown_task(tmp_path):
    with pytest.raises(UsageError, match="'lift'"):
        demos.write_demos("lfit", 1, tmp_path / "x")
