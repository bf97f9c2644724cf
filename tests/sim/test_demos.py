"""Demonstrations: a true RLDS dataset, the same whatever the number of processes."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bridgeact_jax.datasets.cards import find_card
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.datasets.rlds_writer import write_rlds
from bridgeact_jax.datasets.views import find_camera, first_view, view_keys
from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.sim import demos
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.tasks import HELD_OUT, PRACTICE, TASKS
from bridgeact_jax.sim.tasks.base import Step, tool_down
from bridgeact_jax.sim.variation import APPROACH_OFFSET, APPROACH_TURN, vary

NAMES = ["reach", "lift", "pick_and_place"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "rlds"
    assert demos.write_demos(",".join(NAMES), 3, path, seed=5, workers=1) >= 0
    return tfds.builder_from_directory(path).as_data_source("train")


def test_any_prefix_is_balanced(source):
    assert len(source) == 3
    names = [episode["episode_metadata"]["task"].decode() for episode in source]
    assert names == NAMES
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
    name = NAMES[0]
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


@pytest.mark.skipif(can_render() is not None, reason="no graphics library")
def test_pictures_are_those_of_a_calibrated_camera(tmp_path):
    """The card's camera lifts the recorded depth to the table."""
    env = Environment("reach")
    observation = env.reset(5, 0, stream=demos.STREAM)
    step = demos._step(env, observation, np.zeros(8), True, True)
    metadata = {"task": "reach", "seed": 5, "episode": 0, "success": True}
    episode = {"steps": [step, step], "episode_metadata": metadata}
    write_rlds(tmp_path / "rlds", demos.NAME, [episode], demos.features(pictures=True))

    dataset = open_rlds(tmp_path / "rlds")
    card = find_card(dataset.name)
    camera = find_camera(card)
    keys = view_keys(card, camera, dataset)
    (columns,) = dataset.episodes("train", set(keys.values()))
    picture, depth, (fx, fy, cx, cy), pose = first_view(camera, keys, columns)
    colours, measured, _ = env.view(demos.PICTURE_SIZE)
    np.testing.assert_array_equal(picture, colours)
    np.testing.assert_allclose(depth, measured, atol=0.51e-3)
    rows, columns = np.mgrid[150:240:9, 60:180:9]  # the table before the arm, perhaps a thing on it
    z = depth[rows, columns]
    points = np.stack([(columns - cx) / fx * z, (rows - cy) / fy * z, z], axis=-1)
    height = (points @ pose[:3, :3].T + pose[:3, 3])[..., 2]
    assert np.median(np.abs(height)) < 2e-3

    source = tfds.builder_from_directory(tmp_path / "rlds").as_data_source("train")
    (first, _) = source[0]["steps"]
    np.testing.assert_array_equal(first["observation"]["image"], colours)
    assert first["observation"]["depth"].dtype == np.uint16


@pytest.mark.parametrize("task", ["push_into_bay", "pick_and_place"])
def test_variation_keeps_ends_and_what_is_not_loose(task):
    env = Environment(task)
    start = env.reset(0, 0).position
    plan = env.plan()
    kept = [step for step in plan if not step.loose]
    for number in range(30):
        varied = vary(start, plan, np.random.default_rng(number))
        assert len(varied) < demos.MAX_WAYPOINTS and len(varied) > len(plan)
        for a, b in zip(kept, [step for step in varied if not step.loose], strict=True):
            np.testing.assert_array_equal(a.position, b.position)
            np.testing.assert_array_equal(a.rotation, b.rotation)
            assert a.gripper == b.gripper
        np.testing.assert_array_equal(varied[-1].position, plan[-1].position)


@pytest.mark.parametrize("way", [(0, 0, -0.1), (0.08, 0.03, 0.0), (0.0, 0.05, -0.08)])
def test_an_approach_begins_beside_its_way_and_is_corrected_on_it(way):
    way = np.array(way)
    goal = Step(np.array([0.5, 0.1, 0.05]), tool_down(0.2), 0.0)
    before = Step(goal.position - way, tool_down(0.2), 1.0, loose=True)
    rng, length = np.random.default_rng(0), np.linalg.norm(way)
    for _ in range(50):
        beside, corrected, end = vary(before.position, [before, goal], rng)
        offset = beside.position - before.position
        assert np.linalg.norm(offset) <= APPROACH_OFFSET and abs(offset @ way) < 1e-9
        assert 2 * np.arccos(abs(beside.rotation @ before.rotation)) <= APPROACH_TURN + 1e-6
        left = goal.position - corrected.position
        np.testing.assert_allclose(np.cross(left, way), 0, atol=1e-9)
        assert 0.4 * length - 1e-9 <= np.linalg.norm(left) <= 0.05 and left @ way > 0
        assert corrected.gripper == before.gripper and end == goal


@pytest.mark.parametrize("task", [*TASKS, *PRACTICE])
def test_varied_expert_succeeds(task, monkeypatch):
    monkeypatch.setattr(Environment, "cloud", lambda self: None)
    assert demos.record(Environment(task), 3, 0) is not None


def test_names_of_tasks():
    assert set(demos.task_names("all")) == set(TASKS) - set(HELD_OUT)
    assert demos.task_names("lift, stack_two") == ["lift", "stack_two"]


def test_unknown_task(tmp_path):
    with pytest.raises(UsageError, match="'lift'"):
        demos.write_demos("lfit", 1, tmp_path / "x")
