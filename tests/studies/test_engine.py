"""A study's run: trainings once, rows of every cell, kept and refused as it should be."""

import dataclasses
import inspect
import json

import jax
import pytest
from etils import epath

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation import kept
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.models import normalizer
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.studies import engine, experts
from bridgeact_jax.studies.experts import Budget, two_stages
from bridgeact_jax.studies.records import values, where
from bridgeact_jax.studies.registry import STUDIES
from bridgeact_jax.studies.study import Cell, Scope
from bridgeact_jax.training.config import base_config, expert_config
from bridgeact_jax.training.start import open_for_writing
from bridgeact_jax.training.state import initial_state, param_shapes
from tests.parameters import drawn

SCOPE = Scope(("reach",), 2, (0,), True)
TRAIN = experts.train


def cells_of(scope):
    run = two_stages(0, Budget(48, 2, 3), share=1 / 16)._replace(init=None)
    noisy = Condition(
        "expert", errors=PlannerErrors(waypoint_noise=0.05), sample_steps=1, temperature=0.5
    )
    return [
        Cell(Condition("spline"), {"method": "exact"}, measure=lambda _: {"measured": 3.5}),
        Cell(noisy, {"method": "trained"}, run),
    ]


def untrained(config, *, store, workdir, init):
    """What training leaves behind, with weights that have learned nothing."""
    inspect.signature(TRAIN).bind(config, store=store, workdir=workdir, init=init)
    model = expert_config(config)
    params = drawn(param_shapes(model))
    state = jax.jit(lambda: initial_state(config, model, params, normalizer.identity()))()
    scores = {"validation_loss": 1.0, "validation_position_mm": 4.25}
    with open_for_writing(epath.Path(workdir), keep=1) as checkpoints:
        checkpoints.save(config.steps, state, config, {"init": None}, scores)
    lines = [{"step": 1, "samples_per_second": 16.0}, {"step": 3, "samples_per_second": 8.0}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def study(monkeypatch):
    def tiny(name, stage):
        config = base_config()
        config.batch_size, config.use_cloud = 16, stage == "finetune"
        config.model.widths, config.model.condition = (8, 16), 16
        config.model.point_widths = (8, 16)
        return config

    monkeypatch.setattr(experts, "shipped_config", tiny)
    monkeypatch.setattr(experts, "demonstrate", lambda out, demonstrations, workers: None)
    monkeypatch.setattr(experts, "train", untrained)
    return dataclasses.replace(STUDIES["noise"], cells=cells_of)


def run(study, out, scope=SCOPE):
    return engine.run_study(study, scope, out, workers=1, command="a command")


@pytest.mark.slow
def test_a_study_trains_once_evaluates_and_goes_on_where_it_was(study, tmp_path, monkeypatch):
    rows = run(study, tmp_path)
    assert values(rows, "method") == ["exact", "trained"] and len(rows) == 2
    assert rows[0]["successes"] == rows[0]["episodes"] == 2
    assert where(rows, measured=3.5) == [rows[0]] and rows[0]["waypoint_noise"] == 0
    of_trained = rows[1]
    assert (of_trained["expert"], of_trained["demonstrations"]) == ("trained", 3)
    assert (of_trained["stage1_samples"], of_trained["cloud_samples"]) == (0, 48)
    assert (of_trained["validation_mm"], of_trained["tuning_seconds"]) == (4.25, 5)
    assert rows[0]["cloud_samples"] is None
    assert of_trained["episodes"] == 2 and of_trained["waypoint_noise"] == 0.05
    assert (of_trained["sample_steps"], of_trained["temperature"]) == (1, 0.5)
    table = (tmp_path / "noise" / "noise.csv").read_bytes()

    for module, name in ((kept, "run_job"), (experts, "train")):
        monkeypatch.setattr(module, name, None)
    assert run(study, tmp_path) == rows
    assert (tmp_path / "noise" / "noise.csv").read_bytes() == table
    with pytest.raises(UsageError, match="other settings: episodes was 2, is 3; .*another --out"):
        run(study, tmp_path, SCOPE._replace(episodes=3))


def test_a_folder_of_something_else_is_refused(study, tmp_path):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "x").write_text("")
    with pytest.raises(UsageError, match="something else than a study"):
        run(study, tmp_path)


def test_settings_are_the_same_columns_in_every_cell():
    settings = engine.settings_of(cells_of(SCOPE))
    assert len({tuple(one) for one in settings}) == 1
    assert [one["waypoint_noise"] for one in settings] == [0.0, 0.05]
    assert engine.labels_of(settings) == [
        "method exact, policy spline, waypoint_noise 0.0",
        "method trained, policy expert, expert trained, waypoint_noise 0.05, sample_steps 1, "
        "temperature 0.5",
    ]


def test_trainings_come_after_what_they_start_from_and_only_once(tmp_path, monkeypatch):
    calls, made = [], []

    def train(config, *, store, workdir, init):
        assert init is None or (init / "checkpoints" / "2").is_dir()
        (workdir / "checkpoints" / str(config.steps)).mkdir(parents=True)
        calls.append((workdir, init, store.count(",") + 1))

    monkeypatch.setattr(experts, "train", train)
    monkeypatch.setattr(experts, "demonstrate", lambda *words: made.append(words[1]))
    whole = two_stages(0, Budget(48, 2, 3))
    runs = [whole, whole._replace(init=None), two_stages(0, Budget(48, 2, 3), share=1 / 8)]
    for _ in range(2):
        experts.train_all([*runs, whole], tmp_path, workers=1)
    assert made == [48] and len(calls) == 5 == len({workdir for workdir, _, _ in calls})
    assert [init is None for _, init, _ in calls] == [True, True, True, False, False]
    assert calls[-1] == (runs[2].workdir(tmp_path), runs[2].init.workdir(tmp_path), 2)
