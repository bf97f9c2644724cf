"""Models that read and think, in evaluations: both ways to act, what is kept, and misuse."""

import json

import jax
import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.evaluation import films
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.drawing import draw_words
from bridgeact_jax.evaluation.episodes import sample_key
from bridgeact_jax.evaluation.evaluate import evaluate
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.evaluation.policies import EXECUTE
from bridgeact_jax.evaluation.rollouts import BATCH, jobs_of, run_job
from bridgeact_jax.models.observation import PAST, Proprioception, absolute
from bridgeact_jax.planning.learned import LearnedPlanner
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.tasks.math_matching import MathMatching
from bridgeact_jax.training.exported import shipped_expert
from bridgeact_jax.vla.act import act
from bridgeact_jax.vla.checkpoint import load_vla
from bridgeact_jax.vla.reasoning import truth
from bridgeact_jax.vla.speaker import Speaker
from tests.vla.tiny import save, tiny

needs_graphics = pytest.mark.skipif(can_render() is not None, reason="no graphics library")
TASK = "math_matching_open"
READS = {"picture": (64, 96), "patch": 16, "text_length": 40, "layers": 1, "head_layers": 2}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A model that has learned nothing."""
    return save(tmp_path_factory.mktemp("runs") / "untrained", tiny(**READS))


def run(out, condition, episodes=1):
    return evaluate(
        {"x": condition}, [TASK], episodes=episodes, workers=1, out=out, suite=TASK,
        videos={}, title="t", attributed=False,
    )[0]["tasks"][TASK]  # fmt: skip


def records_of(out):
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]


@needs_graphics
@pytest.mark.slow
def test_words_that_are_no_plan_are_kept_counted_and_end_in_a_safe_stop(
    workdir, tmp_path, monkeypatch
):
    condition = Condition("spline", planner="learned", planner_checkpoint=str(workdir))
    task = run(tmp_path / "x", condition)
    assert task["failures"] == {"no_plan": 1} and task["unparsable"] == 2
    assert task["points"]["ocr"]["mean"] == 0 and task["points"]["ocr"]["ci95"][1] > 0
    (record,) = records_of(tmp_path / "x")
    assert record["steps"] == 0 and record["words"] and record["points"]["ocr"] == 0
    cost = json.loads((tmp_path / "x" / "timing.json").read_text())["planner"]
    assert (cost["queries"], cost["unparsable"]) == (2, 2) and cost["seconds"] > 0

    (transcript,) = (tmp_path / "x" / "transcripts").iterdir()
    assert len(transcript.read_text().splitlines()) == 2

    before = (tmp_path / "x" / "episodes.jsonl").read_bytes()
    for path in (tmp_path / "x" / "batches").iterdir():
        path.unlink()
    monkeypatch.setattr(LearnedPlanner, "plan", None)  # nobody is asked twice
    run(tmp_path / "x", condition)
    assert (tmp_path / "x" / "episodes.jsonl").read_bytes() == before


@needs_graphics
@pytest.mark.slow
def test_a_model_that_thinks_rightly_has_all_points_and_its_plan_is_repeated(
    workdir, tmp_path, monkeypatch
):
    def knows(self, pictures, prompts, **how):
        env = Environment(TASK)
        env.reset(0, 0)
        assert prompts == [env.instruction]
        np.testing.assert_array_equal(pictures, [env.front()])
        return [truth(env)]

    monkeypatch.setattr(Speaker, "say", knows)
    condition = Condition("spline", planner="learned", planner_checkpoint=str(workdir))
    task = run(tmp_path / "a", condition)
    assert task["successes"] == 1 and task["unparsable"] == 0
    points = task["points"]
    assert (points["ocr"]["mean"], points["math"]["mean"]) == (4, 2)
    assert points["ocr"]["ci95"][0] < 4 == points["ocr"]["ci95"][1]
    again = run(
        tmp_path / "b", Condition("spline", planner="file", plans=str(tmp_path / "a/plans.jsonl"))
    )
    assert again["successes"] == 1 and "points" not in again
    (first,), (second,) = records_of(tmp_path / "a"), records_of(tmp_path / "b")
    assert first["steps"] == second["steps"] and "words" not in second


@needs_graphics
@pytest.mark.slow
def test_the_head_acts_on_new_pictures_whatever_the_batch(workdir, monkeypatch):
    monkeypatch.setattr(MathMatching, "time_limit", 0.8)
    condition = Condition("chatvla2", str(workdir), seed=3)
    (both,) = jobs_of("x", condition, [(TASK, 0), (TASK, 1)])
    (alone,) = jobs_of("x", condition, [(TASK, 1)])
    both, alone = run_job(both), run_job(alone)
    assert both.records[1] == alone.records[0] and not both.records[0]["success"]
    np.testing.assert_array_equal(both.commands[1], alone.commands[0])
    record = alone.records[0]
    assert record["steps"] == 8 and record["unparsable"] == 1 and "planning" not in record
    assert set(record["points"]) >= {"ocr", "math"} and record["words"]

    vla, env = load_vla(workdir), Environment(TASK)
    seen = env.reset(3, 1)
    pictures = np.tile(env.front(), (BATCH, 1, 1, 1))
    texts = Speaker(vla, BATCH).speak(pictures, [env.instruction] * BATCH, robot=True)
    poses = [np.tile(np.float32(x), (BATCH, PAST + 1, 1)) for x in (seen.position, seen.rotation)]
    width = np.full(BATCH, seen.gripper_width, np.float32)
    arm = Proprioception(*poses, np.ones(BATCH, np.float32), width)
    key = jax.random.fold_in(sample_key(condition, TASK, 1), 0)
    chunks = act(*vla, pictures, texts, arm, jax.numpy.stack([key] * BATCH))
    position, *_ = absolute(chunks[0], poses[0][0, -1], poses[1][0, -1])
    sent = alone.commands[0][:EXECUTE]
    rows = 1 + int(np.argmin(sent[:-1, 7]))  # of this chunk: a new one follows a gripper event
    rows = rows if sent[:-1, 7].min() == 0 else EXECUTE
    np.testing.assert_allclose(sent[:rows, :3], position[:rows], atol=1e-4)


@needs_graphics
def test_a_film_shows_the_words(workdir, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(films, "encode", lambda frames, **how: shown.extend(frames) or b"")
    condition = Condition("chatvla2", str(workdir))
    record = {"task": TASK, "episode": 0, "success": True, "valid": True, "words": "on the"}
    order = films.Film(tmp_path, "x", "x", condition, record, np.zeros((0, 8)), [], True)
    (tmp_path / "videos").mkdir()
    films.film(order)
    (frame,) = shown
    assert frame.shape == (240, 3 * 320, 3)
    env = Environment(TASK)
    env.reset(0, 0)
    np.testing.assert_array_equal(
        frame[:, 640:], draw_words(env.front(), env.instruction, "on the")
    )


def test_words_are_drawn_below_the_picture_and_cut_where_they_do_not_fit():
    picture = np.full((64, 96, 3), 200, np.uint8)
    drawn = [draw_words(picture, "pick it.", words) for words in ("", "8 × 3.", "word " * 200)]
    assert all(one.shape == (240, 320, 3) and one.dtype == np.uint8 for one in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    dark = np.argwhere((drawn[2] < 60).all(axis=-1))
    assert dark[:, 0].min() > 100 and dark.max(axis=0)[0] < 238 and dark.max(axis=0)[1] < 319


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--planner=learned"], "--planner=learned needs --planner_checkpoint"),
        (["--planner=learned", "--planner_checkpoint={tmp}"], "no checkpoints here"),
        (["--planner=learned", "--planner_checkpoint={expert}"], "an exported action expert"),
        (["--planner=learned", "--planner_checkpoint={vla}", "--suite=math_matching,lift"],
         "words for the worlds that are read alone, not for 'lift': --suite is to be of math_"),
        (["--planner=learned", "--planner_checkpoint={vla}", "--waypoint_noise=0.1"],
         "an error of --planner=oracle"),
        (["--planner=learned", "--planner_checkpoint={small}"],
         "looks at pictures of 16 x 24 pixels: the front camera's are of 64 x 96"),
        (["--policy=chatvla2"], "--policy=chatvla2 needs --checkpoint=WORKDIR"),
        (["--policy=chatvla2", "--checkpoint={mute}"], "has no trained action head"),
        (["--policy=chatvla2", "--checkpoint={vla}", "--suite=lift"], "not for 'lift'"),
        (["--policy=chatvla2", "--checkpoint={vla}", "--planner=learned",
          "--planner_checkpoint={vla}"], "--policy=chatvla2 sees no plan"),
        (["--policy=expert", "--checkpoint={vla}"], "is no action expert"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_asked_is_one_clear_line(words, message, workdir, tmp_path, capsys):
    for name, changes in (("small", {"layers": 1}), ("mute", READS)):
        if f"{{{name}}}" in "".join(words):
            save(tmp_path / name, tiny(**changes), acts=name != "mute")
    folders = {"tmp": tmp_path, "vla": workdir, "expert": shipped_expert()}
    folders |= {name: tmp_path / name for name in ("small", "mute")}
    command = ["bridgeact", "evaluate", f"--out={tmp_path}/x", f"--suite={TASK}"]
    if not any(word.startswith("--policy") for word in words):
        command.append("--policy=spline")
    assert cli.main([*command, *(word.format(**folders) for word in words)]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()
