"""What the studies of ChatVLA-2 share: trainings in order, once, and taken as they are found."""

import inspect

import pytest

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation import kept
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.sim.tasks.math_matching import MathMatching
from bridgeact_jax.studies import engine, stages
from bridgeact_jax.studies.experiment import scope_of
from bridgeact_jax.studies.records import values, where
from bridgeact_jax.studies.registry import STUDIES
from bridgeact_jax.studies.stages import COTRAIN, DENSE, HEAD, HEAD_ALONE, TUNING, WARMUP, tuned
from bridgeact_jax.studies.study import Scope
from bridgeact_jax.vla.settings import base_config, check_config
from tests.vla.tiny import save, tiny

ALL = (HEAD, HEAD_ALONE, tuned(TUNING[-1]))
TRAIN = stages.train
needs_graphics = pytest.mark.skipif(can_render() is not None, reason="no graphics library")


def test_every_training_can_be_run_and_has_a_folder_of_its_own():
    runs = dict.fromkeys(part for end in ALL for part in end.chain)
    assert len({run.name for run in runs}) == len(runs) == 5 + len(TUNING)
    for run in runs:
        for quick in (False, True):
            config = run.config(quick)
            check_config(config)
            assert config.keys() == base_config().keys()
            assert (config.steps == stages.QUICK_STEPS) == quick
            assert (run.init is None) == (config.trained == "vlm" and config.robot_share == 0)


def test_the_variants_of_the_stages_differ_in_what_is_left_out_alone():
    assert HEAD.chain == [DENSE, WARMUP, COTRAIN, HEAD]
    assert HEAD_ALONE.chain == [DENSE, WARMUP, HEAD_ALONE]
    assert HEAD.config(False) == HEAD_ALONE.config(False)


def test_a_planners_tuning_adds_up_on_new_batches_without_the_head():
    assert tuned(0) == WARMUP
    for steps in TUNING:
        chain = [run.config(False) for run in tuned(steps).chain if run.name.startswith("tuned")]
        assert sum(config.steps for config in chain) == steps
        assert len({config.seed for config in chain}) == len(chain)
        assert {(c.trained, c.robot_share, c.weight.action) for c in chain} == {("vlm", 1.0, 0.0)}


@pytest.fixture
def made(monkeypatch):
    """What is made, instead of making it: names of data, and (workdir, init) of trainings."""
    names = []

    def write(out, *words, **how):
        names.append(out.name)
        out.mkdir()

    def train(config, *, workdir, imagetext, robot, init):
        inspect.signature(TRAIN).bind(config, workdir=workdir, init=init)
        assert bool(imagetext) == (config.robot_share < 1)
        assert [path.name for path in robot] == ["math", "toy"] * (config.robot_share > 0)
        names.append((workdir.name, init and init.name))
        save(workdir, tiny(picture=(64, 96), patch=16, text_length=40, layers=1, head_layers=2))

    monkeypatch.setattr(stages, "write_imagetext", write)
    monkeypatch.setattr(stages, "write_episodes", write)
    monkeypatch.setattr(stages, "train", train)
    return names


def test_what_is_missing_is_made_once_and_what_is_there_is_taken(made, tmp_path):
    (tmp_path / "math").mkdir()
    save(tmp_path / "dense", tiny(layers=1))
    stages.prepare(str(tmp_path), [HEAD, HEAD_ALONE], quick=True, workers=1)
    assert made == [
        "imagetext", "knowledge", "toy", ("warmup", "dense"), ("cotrain", "warmup"),
        ("head", "cotrain"), ("head_alone", "warmup"),
    ]  # fmt: skip
    stages.prepare(str(tmp_path), [HEAD], quick=True, workers=1)
    assert len(made) == 7
    assert not stages.finished(tmp_path / "nowhere")


@needs_graphics
@pytest.mark.slow
def test_a_study_of_both_ways_to_act_has_points_and_knowledge(made, tmp_path, monkeypatch):
    """With models that have learned nothing, in episodes that are soon over."""
    from bridgeact_jax.studies import reasoning
    from bridgeact_jax.training.exported import shipped_expert

    monkeypatch.setattr(MathMatching, "time_limit", 0.4)
    monkeypatch.setattr(reasoning, "examine", lambda model, test: {"sum": (3, 4), "read": (0, 1)})
    reasoning._knows.cache_clear()
    expert = str(shipped_expert())
    scope = Scope(
        ("math_matching_open",), 1, (0,), True, expert, expert, str(tmp_path / "chatvla")
    )
    run = {"out": tmp_path, "workers": 1, "command": "a command"}
    rows = engine.run_study(STUDIES["chatvla2"], scope, **run)
    assert values(rows, "way") == ["its own head", "waypoints and expert"]
    for row in rows:
        assert (row["ocr"], row["math"]) == (0, 0) and row["unparsable"] > 0
        assert row["successes"] == 0
    (acts,) = where(rows, policy="chatvla2")
    assert (acts["known"], acts["known_before"], acts["asked"]) == (3, 3, 5)
    assert acts["expert"] == "head at step 4000"
    assert where(rows, planner_checkpoint="head") == [rows[1]]

    monkeypatch.setattr(kept, "run_job", None)
    monkeypatch.setattr(reasoning, "examine", None)
    assert engine.run_study(STUDIES["chatvla2"], scope, **run) == rows


def test_the_folder_of_stages_is_of_the_studies_that_use_it():
    class Args(dict):
        __getattr__ = dict.__getitem__

    class Unset:
        value = None

    args = Args(quick=False, out=None, chatvla="elsewhere", seeds=None, suite=None, episodes=None,
                checkpoint=Unset, blind=Unset)  # fmt: skip
    with pytest.raises(UsageError, match="noise is not about ChatVLA-2: leave out --chatvla"):
        scope_of(STUDIES["noise"], args)
