"""Evaluation as a user meets it: fair, repeatable, and the same for any number of processes."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation import evaluate as evaluate_command
from bridgeact_jax.evaluation.drawing import draw_scene
from bridgeact_jax.evaluation.evaluate import evaluate, suite_tasks
from bridgeact_jax.evaluation.policies import SplinePolicy
from bridgeact_jax.evaluation.rollouts import BATCH, Condition, jobs_of, run_job
from bridgeact_jax.planning.oracle import oracle_plan
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.sim.tasks import TASKS
from bridgeact_jax.training.config import base_config


def outcomes(condition, task="reach", episodes=3):
    return [r for job in jobs_of(condition, [task], episodes) for r in run_job(job).records]


@pytest.mark.slow
def test_following_an_exact_plan_succeeds_and_a_wrong_plan_does_not():
    exact = outcomes(Condition("spline"), "lift", 8)
    assert all(record["success"] for record in exact)
    other = outcomes(Condition("spline", ablation="shuffled_guidance"), "lift", 8)
    assert not any(record["success"] for record in other)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    condition = Condition("spline", waypoint_noise=0.03)
    for workers in (1, 2):
        evaluate(
            {"spline": condition}, ["reach", "lift"], episodes=4, workers=workers,
            out=tmp_path / str(workers), suite="short", videos={}, title="twice",
        )  # fmt: skip
    first, second = (
        [(tmp_path / str(n) / name).read_bytes() for name in ("results.json", "episodes.jsonl")]
        for n in (1, 2)
    )
    assert first == second
    result = json.loads(first[0])
    assert result["policy"] == "spline" and result["waypoint_noise"] == 0.03
    assert {task["episodes"] for task in result["tasks"].values()} == {4}
    assert set(result["summary"]) == {"short", "middle", "long"}
    assert len(first[1].splitlines()) == 8
    assert b"<html" in (tmp_path / "1" / "report.html").read_bytes()


def test_jobs_cover_every_episode_once_and_film_the_first():
    jobs = jobs_of(Condition("spline"), ["reach", "lift"], 2 * BATCH + 3, film=BATCH + 2)
    for task in ("reach", "lift"):
        own = [job for job in jobs if job.task == task]
        assert [e for job in own for e in job.episodes] == list(range(2 * BATCH + 3))
        assert [job.film for job in own] == [BATCH, 2, 0]


def test_the_oracle_errs_as_told():
    env = Environment("lift")
    env.reset(0, 0)
    truth = pad(env.waypoints())
    camera = np.array([1.0, 0.5, 0.8])
    keys = jax.random.split(jax.random.key(0), 300)

    def errors(**noise):
        plans = [oracle_plan(k, truth, camera=camera, **noise).position for k in keys]
        return np.stack(plans) - truth.position

    exact = errors(waypoint_noise=0.0, depth_noise=0.0)
    np.testing.assert_allclose(exact, 0, atol=1e-6)
    wide = errors(waypoint_noise=0.03, depth_noise=0.0)
    np.testing.assert_array_equal(wide[:, 0], 0)
    np.testing.assert_allclose(wide[:, 1:4].std(), 0.03, rtol=0.05)
    deep = errors(waypoint_noise=0.0, depth_noise=0.1)[:, 1:4]
    ray = truth.position[1:4] - camera
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    along = np.sum(deep * ray, axis=-1)
    np.testing.assert_allclose(deep, along[..., None] * ray, atol=1e-5)
    np.testing.assert_allclose(along, along[:, :1].repeat(3, axis=1), atol=1e-5)
    np.testing.assert_allclose(along.std(), 0.1, rtol=0.15)


def test_the_spline_policy_holds_and_then_gives_up():
    env = Environment("reach")
    env.reset(0, 0)
    policy = SplinePolicy([pad(env.waypoints())])
    position = [policy.targets([], None)[0][0] for _ in range(60)]
    np.testing.assert_array_equal(position[-1], position[-2])
    np.testing.assert_allclose(position[-1], env.waypoints().position[-1], atol=1e-5)
    assert policy.finished().all()


def test_a_drawing_shows_points_where_the_camera_sees_them():
    nothing = np.zeros((0, 3))
    here = np.array([[0.47, 0.0, 0.15]])
    empty = draw_scene(nothing, here, here, here, 1.0)
    assert empty.shape == (240, 320, 3) and empty.dtype == np.uint8
    full = draw_scene(here + np.array([[0, 0, 0.1]]), here, here, here, 1.0)
    changed = np.argwhere((empty != full).any(axis=-1))
    assert 0 < len(changed) < 30
    assert abs(changed[:, 1].mean() - 160) < 3 and changed[:, 0].mean() < 110


@pytest.mark.parametrize(("word", "hint"), [("shrt", "short"), ("lft", "lift"), ("al", "all")])
def test_an_unknown_suite_names_the_nearest(word, hint):
    with pytest.raises(UsageError, match=f"did you mean '{hint}'"):
        suite_tasks(word)
    assert suite_tasks("all") == list(TASKS)
    assert suite_tasks("lift") == ["lift"]


def test_a_horizon_without_tasks_is_a_valid_word():
    with pytest.raises(UserError, match=r"'long' yet; tasks: reach \(short\)") as caught:
        suite_tasks("long")
    assert caught.value.exit_status == 1


def run_nothing(condition, out):
    evaluate(
        {"x": condition}, ["reach"], episodes=1, workers=1, out=out, suite="reach", videos={},
        title="x",
    )  # fmt: skip


@pytest.mark.parametrize("policy", ["spline", "expert_blind"])
def test_an_ablation_without_effect_is_refused(policy, tmp_path):
    with pytest.raises(UsageError, match=f"changes nothing: --policy={policy}"):
        run_nothing(Condition(policy, ablation="empty_cloud"), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_blind_checkpoint_is_no_expert(tmp_path, monkeypatch):
    class Blind:
        def config(self):
            return base_config(), {}

        def close(self):
            pass

    monkeypatch.setattr(evaluate_command, "open_checkpoints", lambda workdir: Blind())
    with pytest.raises(UsageError, match="never seen a cloud: use --policy=expert_blind"):
        run_nothing(Condition("expert", checkpoint="w"), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_directory_is_found_before_anything_runs(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    for out in (taken, "/proc"):
        with pytest.raises(UserError, match="--out=.*cannot be written to"):
            run_nothing(Condition("spline"), out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--policy=expert", "--out={tmp}/x"], 2, "needs --checkpoint"),
        (["--policy=expert", "--checkpoint={tmp}", "--out={tmp}/x"], 1, "no checkpoints here"),
        (["--policy=spline", "--suite=long", "--out={tmp}/x"], 1, "no task of horizon 'long'"),
        (["--policy=splin", "--out={tmp}/x"], 2, "did you mean 'spline'"),
    ],
)
def test_bad_input_is_one_clear_line(words, status, message, tmp_path):
    words = [word.format(tmp=tmp_path) for word in words]
    command = [sys.executable, "-m", "bridgeact_jax.cli", "evaluate", "--episodes=1", *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == status and message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
