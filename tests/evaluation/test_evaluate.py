"""Evaluation as a user meets it: fair, repeatable, resumable, and clear about what is wrong."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation import checkpoints, episodes, films, kept, planners, rollouts, viewing
from bridgeact_jax.evaluation.conditions import SWEEPS, Condition, sweep
from bridgeact_jax.evaluation.drawing import draw_scene
from bridgeact_jax.evaluation.evaluate import evaluate, suite_tasks
from bridgeact_jax.evaluation.policies import SplinePolicy
from bridgeact_jax.evaluation.rollouts import BATCH, PARTS, Clock, jobs_of, run_job
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.sim.tasks import HELD_OUT, TASKS
from bridgeact_jax.training.config import base_config, shipped_config
from bridgeact_jax.training.exported import Origin

NOISY = Condition("spline", errors=PlannerErrors(waypoint_noise=0.03, calibration=0.01))
FILES = ("results.json", "episodes.jsonl")


def run(out, *, workers=1, condition=NOISY, videos=0):
    return evaluate(
        {"spline": condition}, ["reach", "lift"], episodes=11, workers=workers, out=out,
        suite="reach,lift", videos={"spline": videos}, title="A title",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished evaluation of two batches, by one process."""
    out = tmp_path_factory.mktemp("evaluation") / "one"
    run(out, videos=1)
    return out


def contents(out):
    return [(out / name).read_bytes() for name in FILES]


@pytest.mark.slow
def test_results_and_report_of_a_run(finished):
    result = json.loads((finished / "results.json").read_text())
    assert (result["policy"], result["waypoint_noise"], result["calibration"]) == (
        "spline", 0.03, 0.01
    )  # fmt: skip
    assert "latency" not in result and str(finished) not in (finished / "results.json").read_text()
    lines = [json.loads(line) for line in (finished / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 22
    for name, task in result["tasks"].items():
        own = [line for line in lines if line["task"] == name]
        assert task["episodes"] == 11 == len(own)
        failed = [line for line in own if not line["success"]]
        assert sum(task["failures"].values()) == len(failed) == sum(task["causes"].values())
        assert set(task["subgoals"]) == set(TASKS[name].subgoals)
    videos = sorted(path.name for path in (finished / "videos").iterdir())
    firsts = {(line["task"], line["success"]): line["episode"] for line in reversed(lines)}
    assert videos == sorted(f"00_{task}_{e:05d}.webp" for (task, _), e in firsts.items())
    page = (finished / "report.html").read_text()
    assert page.count("data:image/webp") == len(videos)
    timing = json.loads((finished / "timing.json").read_text())
    assert set(timing["seconds"]) == set(PARTS) and timing["episodes"] == 22


@pytest.mark.slow
def test_killed_and_started_again_with_two_processes_gives_the_same_bytes(finished, tmp_path):
    """The second run goes on from the batches that the first has finished."""
    out = tmp_path / "two"
    command = (
        "from tests.evaluation.test_evaluate import run; from pathlib import Path; "
        f"run(Path({str(out)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    while not list(out.glob("batches/*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("batches/*.npz")}
    run(out, workers=2)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("batches/*.npz")}
    assert before and before.items() <= after.items()
    assert contents(out) == contents(finished)


@pytest.mark.slow
def test_a_finished_evaluation_is_not_run_again(finished, monkeypatch):
    before = contents(finished)
    monkeypatch.setattr(kept, "run_job", None)
    run(finished, videos=1)
    assert contents(finished) == before


def test_another_evaluation_in_the_folder_is_refused_or_replaced(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match="holds something else"):
        run(tmp_path)
    out = tmp_path / "out"
    kept.claim(out, {"episodes": 2}, overwrite=False)
    with pytest.raises(UsageError, match="holds another evaluation: episodes was 2, is 3; repeat"):
        kept.claim(out, {"episodes": 3}, overwrite=False)
    (out / "batches" / "00_00000.npz").write_text("old")
    kept.claim(out, {"episodes": 2}, overwrite=False)
    assert list((out / "batches").iterdir())
    kept.claim(out, {"episodes": 3}, overwrite=True)
    assert not list((out / "batches").iterdir())


def outcomes(condition, task="lift", count=4):
    wanted = [(task, episode) for episode in range(count)]
    return [r for job in jobs_of("x", condition, wanted) for r in run_job(job).records]


@pytest.mark.slow
def test_following_an_exact_plan_succeeds_and_a_wrong_plan_does_not():
    exact = outcomes(Condition("spline"))
    assert all(record["success"] for record in exact)
    assert all(all(record["subgoals"].values()) for record in exact)
    for condition in (
        Condition("spline", ablation="shuffled_guidance"),
        Condition("spline", errors=PlannerErrors(wrong_waypoint="off_object")),
    ):
        found = outcomes(condition, count=2)
        assert not any(record["success"] for record in found)
        assert all(record["failure_kind"] for record in found)


class Unfit:
    """A policy that goes wrong: NaN in every other row, the rest flies off."""

    def __init__(self, plans):
        self._start = np.stack([plan.position[0] for plan in plans])
        self._rotation = np.stack([plan.rotation[0] for plan in plans])
        self._step = 0

    def targets(self, observations, cloud_of):
        self._step += 1
        position = self._start + [0, 0, 0.05 * self._step]
        position[::2] = np.nan
        return position, self._rotation, np.ones(len(position))

    def finished(self):
        return np.zeros(len(self._start), bool)


def test_a_policy_gone_wrong_is_a_failure_of_its_kind_and_no_crash(monkeypatch):
    monkeypatch.setattr(rollouts, "SplinePolicy", Unfit)
    found = outcomes(Condition("spline"), task="reach")
    assert [record["failure_kind"] for record in found] == ["not_finite", "unsafe"] * 2
    assert all(record["valid"] and not record["success"] for record in found)


def test_jobs_cover_every_episode_once_under_names_of_their_own():
    wanted = [(task, episode) for task in ("reach", "lift") for episode in range(2 * BATCH + 3)]
    jobs = jobs_of("00", Condition("spline"), wanted)
    assert [one for job in jobs for one in job.episodes] == wanted
    assert max(len(job.episodes) for job in jobs) == BATCH
    assert max(Counter(job.name for job in jobs).values()) == 1


def test_the_clock_counts_nothing_twice():
    clock = Clock()
    with clock.part("policy"):
        time.sleep(0.02)
        with clock.part("rays"):
            time.sleep(0.04)
    time.sleep(0.01)
    seconds = clock.seconds()
    assert seconds["physics"] == 0
    assert 0.02 <= seconds["policy"] < 0.04 <= seconds["rays"] and seconds["rest"] >= 0.01


def test_the_clouds_of_a_miscalibrated_camera_are_shifted_with_the_plan():
    env = Environment("lift")
    env.reset(0, 3)
    true_cloud, true_plan = env.cloud(), pad(env.waypoints())
    condition = Condition("expert", errors=PlannerErrors(calibration=0.05))
    plan = planners.plan_of(env, condition, 3)
    shift = plan.position[1:] - true_plan.position[1:]
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), 0.05, rtol=1e-4)
    seen = episodes.cloud(env, condition, 3).astype(float) - true_cloud
    np.testing.assert_allclose(seen, np.broadcast_to(shift[0], seen.shape), atol=2e-3)


def test_the_first_failures_and_successes_are_filmed():
    records = [
        {"task": task, "success": success, "valid": True}
        for task in ("a", "b") for success in (True, False, False, True, True)
    ]
    assert films.choose(records, 1) == [0, 1, 5, 6]
    assert films.choose(records, 2) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert films.choose(records, 0) == []


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


# ---- what is asked for ------------------------------------------------------------------------


def test_suites_are_horizons_tasks_and_lists():
    assert suite_tasks("all") == list(TASKS)
    assert suite_tasks("lift") == ["lift"]
    short = [name for name, task in TASKS.items() if task.horizon == "short"]
    assert suite_tasks("short") == short
    assert suite_tasks("pick_and_place,reach") == ["reach", "pick_and_place"]


@pytest.mark.parametrize(("word", "hint"), [("shrt", "short"), ("lft", "lift"), ("al", "all")])
def test_an_unknown_suite_names_the_nearest(word, hint):
    with pytest.raises(UsageError, match=f"did you mean '{hint}'"):
        suite_tasks(f"reach,{word}")


def test_a_sweep_varies_one_axis_from_off():
    base = Condition("expert", errors=PlannerErrors(depth_noise=0.01))
    for axis, values in SWEEPS.items():
        found = sweep(base, axis)
        off, *on = (c.axes | {"arm": c.arm} for c in found.values())
        assert off.get(axis, values[0]) == values[0]
        assert [settings[axis] for settings in on] == list(values[1:])
        if axis != "depth_noise":
            assert all(settings["depth_noise"] == 0.01 for settings in on)
    with pytest.raises(UsageError, match="unknown --sweep 'latensy': did you mean 'latency'"):
        sweep(base, "latensy")


def checkpoint_of(monkeypatch, config):
    monkeypatch.setattr(checkpoints, "describe", lambda path: Origin(config, {}, 3, {}))
    monkeypatch.setattr(checkpoints, "load_expert", lambda workdir: None)


@pytest.mark.parametrize(
    ("policy", "stage", "tasks", "message"),
    [
        ("expert", "blind", ["lift"], "never seen a cloud: use --policy=expert_blind"),
        ("expert", "cloud_only", ["lift"], "never seen a plan: use --policy=cloud_only"),
        ("expert_blind", "cloud_only", ["lift"], "never seen a plan"),
        ("cloud_only", "expert", ["lift"], "has learned from plans"),
        ("cloud_only", "cloud_only", ["lift", "reach"], "of the task 'lift' alone"),
        ("cloud_only", "cloud_only", ["reach"], "use --suite=lift"),
        ("cloud_only", "cloud_only", ["lift"], None),
        ("expert", "expert", ["lift", "reach"], None),
    ],
)
def test_a_checkpoint_must_be_what_the_policy_needs(policy, stage, tasks, message, monkeypatch):
    config = shipped_config("cloud_only", "lift") if stage == "cloud_only" else base_config()
    config.use_cloud = stage != "blind"
    checkpoint_of(monkeypatch, config)
    if message is None:
        checkpoints.check_checkpoint(policy, "w", tasks)
    else:
        with pytest.raises(UsageError, match=message):
            checkpoints.check_checkpoint(policy, "w", tasks)


@pytest.mark.parametrize(
    "condition",
    [
        Condition("spline", ablation="empty_cloud"),
        Condition("expert_blind", ablation="empty_cloud"),
        Condition("cloud_only", ablation="shuffled_guidance"),
    ],
)
def test_an_ablation_without_effect_is_refused(condition, tmp_path):
    with pytest.raises(UsageError, match=f"changes nothing: --policy={condition.policy}"):
        run(tmp_path / "x", condition=condition)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_directory_is_found_before_anything_runs(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    for out in (taken, "/proc"):
        with pytest.raises(UserError, match="--out=.*cannot be written to"):
            run(out)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--policy=cloud_only"], 2, "needs --checkpoint"),
        (["--policy=expert", "--checkpoint={tmp}"], 1, "no checkpoints here"),
        (["--policy=spline", "--suite=lng"], 2, "did you mean 'long'"),
        (["--policy=splin"], 2, "did you mean 'spline'"),
        (["--policy=spline", "--sweep=hols"], 2, "did you mean 'holes'"),
        (["--policy=spline", "--arm=ur5"], 2, "did you mean 'ur5e'"),
        (["--policy=spline", "--waypoint_noise=-1"], 2, "waypoint_noise=-1.0: must be"),
        (["--policy=spline", "--holes=2"], 2, "holes=2.0: must be"),
        (["--policy=spline", "--wrong_waypoint=of_object"], 2, "did you mean 'off_object'"),
    ],
)
def test_bad_input_is_one_clear_line(words, status, message, tmp_path, capsys):
    words = [word.format(tmp=tmp_path) for word in words]
    command = ["bridgeact", "evaluate", "--episodes=1", f"--out={tmp_path}/x", *words]
    assert cli.main(command) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_episodes_are_shown_until_the_window_is_closed(monkeypatch, capsys):
    shown = []

    @contextlib.contextmanager
    def watch(env):
        def show():
            shown.append(env.time)
            return len(shown) < 5

        yield show

    monkeypatch.setattr(viewing, "watch", watch)
    command = ["bridgeact", "evaluate", "--policy=spline", "--suite=reach", "--view"]
    assert cli.main(command) == 0
    assert cli.main(command[:-1]) == 2  # without the window there must be --out
    np.testing.assert_allclose(shown, np.arange(1, 6) / 10)
    assert "reach, episode 0: reach" in capsys.readouterr().out


def test_held_out_tasks_are_evaluated():
    assert set(HELD_OUT) <= set(suite_tasks("all"))
