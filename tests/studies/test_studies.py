"""Every study: what it declares and would write; the document is what the tables say."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from bridgeact_jax import cli
from bridgeact_jax.evaluation.evaluate import suite_tasks
from bridgeact_jax.evaluation.statistics import POINTS, wilson
from bridgeact_jax.sim.tasks import TASKS, WORLDS
from bridgeact_jax.studies import curves, document, drawing, engine, experiment, experts, trained
from bridgeact_jax.studies.records import (
    HOLDS,
    NOT_RUN,
    VERDICTS,
    Rate,
    difference,
    larger,
    mean,
    rate,
    reaches,
    read_rows,
    where,
    write_rows,
)
from bridgeact_jax.studies.registry import STUDIES
from bridgeact_jax.studies.study import Scope
from bridgeact_jax.training.config import check_config

DOCS = Path(__file__).parents[2] / "docs"


def scope_of(study, quick):
    size = study.quick if quick else study.full
    expert = None if study.trains else "runs/_expert"
    tasks = tuple(suite_tasks(size.suite))
    chatvla = study.prepare and f"runs/studies{'_quick' * quick}/chatvla"
    return Scope(tasks, size.episodes, size.seeds, quick, expert, expert, chatvla)


def measured(cell):
    """Columns like those that the cell measures."""
    if cell.condition.reasons:
        return {"knowledge": 0.9, "known": 990, "asked": 1100, "known_before": 1000}
    return {"latency_ms": 2.0 + cell.condition.sample_steps, "latency_p95_ms": 30.0}


def thought(task, episodes, rng):
    """Points like those of a model that thinks."""
    names = ("ocr", "math") if task.startswith("math") else ("object", "affordance")
    points = {name: int(rng.binomial(POINTS[name] * episodes, 0.8)) for name in names}
    return {**points, "unparsable": 1}


def made_up(study, quick, monkeypatch, chance=lambda row: 0.5):
    """Rows as a run of the study writes them, with outcomes drawn at random."""
    monkeypatch.setattr(engine, "latest_step", lambda checkpoint: 9)
    engine._name.cache_clear()
    rng, scope = np.random.default_rng(0), scope_of(study, quick)
    cells, rows = study.cells(scope), []
    for cell, settings in zip(cells, engine.settings_of(cells), strict=True):
        more = {}
        if cell.measure is not None:
            more |= measured(cell)
        if cell.training is not None:
            monkeypatch.setattr(experts, "_seconds", lambda run, out: run.steps)
            monkeypatch.setattr(experts, "_validation", lambda workdir: rng.uniform(5, 15))
            more |= experts.account(cell.training, Path("nowhere"))
        for task in scope.tasks:
            row = {
                "study": study.name, "size": "quick" if quick else "full", **settings,
                "task": task, "horizon": (TASKS | WORLDS)[task].horizon,
                "episodes": scope.episodes, "wrong_object": 0, "invalid": 0, **more,
            }  # fmt: skip
            if cell.condition.reasons:
                row |= thought(task, scope.episodes, rng)
            row["successes"] = int(rng.binomial(scope.episodes, chance(row)))
            row["low"], row["high"] = wilson(row["successes"], scope.episodes)
            rows.append(row)
    return rows


# ---- every study --------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_a_study_is_whole(study, quick, monkeypatch, tmp_path):
    cells = study.cells(scope_of(study, quick))
    rows = made_up(study, quick, monkeypatch)
    labels = engine.labels_of(engine.settings_of(cells))
    assert len(set(labels)) == len(cells) > 1

    write_rows(tmp_path / "x.csv", rows)
    assert read_rows(tmp_path / "x.csv") == [
        {name: row.get(name) for name in dict.fromkeys(n for r in rows for n in r)} for row in rows
    ]

    shown = set()
    for panel in study.panels:
        found = curves.curves(panel, rows)
        assert found and max(map(len, found.values())) > 1, panel.title
        for point in itertools.chain(*found.values()):
            assert point.low - 1e-9 <= point.value <= point.high + 1e-9
        shown.update(id(row) for row in where(rows, **panel.only))
    assert len(shown) == len(rows), "a cell that no panel shows"

    text = document.section(study, rows)
    assert all(finding in text for finding in study.findings(rows)) and study.findings(rows)
    assert not re.search(r"\b(nan|None)\b", text)
    title = drawing.draw(study, rows).get_suptitle()
    assert ("quick run" in text) == quick == ("quick run" in title)
    assert all(claim.verdict in VERDICTS for claim in study.claims(rows))
    for claim in [] if quick else study.claims(rows):
        assert claim.verdict != NOT_RUN
    assert f"{study.name}" in experiment.__doc__


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_the_command_in_the_document_runs_the_same_study(study, monkeypatch):
    rows = made_up(study, False, monkeypatch)
    rows = [{**row, "episodes": 7} for row in rows]
    words = document.command_of(study, rows).split()
    assert words[:3] == ["bridgeact", "experiment", study.name] and "--episodes=7" in words
    before = set(flags.FLAGS)
    experiment.define_flags()
    try:
        flags.FLAGS(words[1:] if study.trains else [*words[1:], "--checkpoint=runs/_expert"])
        scope = experiment.scope_of(study, flags.FLAGS)
    finally:
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
        flags.FLAGS.unparse_flags()
    assert scope == scope_of(study, False)._replace(episodes=7)


@pytest.mark.parametrize(
    "study", [s for s in STUDIES.values() if s.trains], ids=lambda study: study.name
)
@pytest.mark.parametrize("quick", [False, True])
def test_trainings_can_be_run_and_differ_in_what_the_study_says(study, quick):
    cells = study.cells(scope_of(study, quick))
    runs = {cell.training.digest: cell.training for cell in cells}
    for run in runs.values():
        for part in run.chain:
            check_config(part.config)
            assert part.config.model == run.config.model and part.stores(Path())
    assert len(runs) == len({(cell.training, cell.training.seed) for cell in cells})
    budget = experts.QUICK if quick else experts.FULL
    assert max(run.steps for run in runs.values()) == budget.stage2


def test_the_three_ways_to_train_have_equal_tuning_and_the_right_start():
    cells = STUDIES["appf"].cells(scope_of(STUDIES["appf"], False))
    by_method = {
        method: [cell.training for cell in cells if cell.labels["method"] == method]
        for method in (trained.AFTER, trained.START, trained.NONE)
    }
    for after, start, none in zip(*by_method.values(), strict=True):
        assert after.steps == start.steps == none.steps
        assert after.config == start.config and after.config.use_cloud
        assert not none.config.use_cloud
        assert after.init == none.init and start.init is None and not after.init.config.use_cloud


def test_sittings_add_up_and_shares_are_nested():
    assert sum(1 / part for part in experts.SITTINGS) == 1
    run = experts.two_stages(0, experts.FULL)
    before = []
    for share, number in ((1 / 16, 30), (1 / 8, 60), (1 / 4, 120), (1 / 2, 240), (1, 480)):
        found = run._replace(share=share).stores(Path())
        assert found[: len(before)] == before and len(found) > len(before)
        assert sum(480 // part for part in experts.SITTINGS[: len(found)]) == number
        before = found
    with pytest.raises(ValueError):
        run._replace(share=0.3).stores(Path())


def test_points_are_pooled_as_shares_of_what_could_be_had():
    rows = [
        {"task": "a", "episodes": 10, "successes": 4, "ocr": 35},
        {"task": "b", "episodes": 30, "successes": 6, "ocr": 120},
        {"task": "c", "episodes": 50, "successes": 50, "object": 25},
    ]
    found = rate(rows, "ocr")
    assert found == Rate(155, 40, 4) and found.share == 155 / 160
    np.testing.assert_allclose(found.interval, wilson(155 / 4, 40))
    assert str(found).startswith("3.88 of 4 (3.4") and str(rate(rows, "math")) == "–"
    assert rate(rows) == Rate(60, 90)
    assert reaches(found, 0.96) == HOLDS and reaches(Rate(10, 50), 0.5) == "does not hold"
    assert reaches(Rate(40, 52), 0.8) == "not resolved" and reaches(Rate(0, 0), 0.8) == NOT_RUN


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first, second, expected",
    [  # Newcombe (1998), Statistics in Medicine 17, table II, method 10
        ((56, 70), (48, 80), (0.2, 0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.6, 0.1705, 0.8090)),
        ((10, 10), (0, 10), (1.0, 0.6075, 1.0)),
    ],
)
def test_difference_of_shares_is_newcombes(first, second, expected):
    np.testing.assert_allclose(difference(Rate(*first), Rate(*second)), expected, atol=6e-5)


def test_verdicts_follow_the_interval():
    assert larger(Rate(90, 100), Rate(50, 100)) == HOLDS
    assert larger(Rate(50, 100), Rate(90, 100)) == "does not hold"
    assert larger(Rate(52, 100), Rate(50, 100)) == "not resolved"
    assert larger(Rate(0, 0), Rate(50, 100)) == NOT_RUN


def test_a_measured_column_is_averaged_over_cells_not_tasks():
    rows = [
        {"seed": seed, "task": task, "validation_mm": error, "episodes": 1, "successes": 0}
        for seed, error, tasks in ((0, 2.0, ("a", "b", "c")), (1, 5.0, ("a",)))
        for task in tasks
    ]
    assert mean(rows, "validation_mm") == 3.5
    assert math.isnan(mean([], "validation_mm"))


def test_the_samples_needed_are_the_fewest_at_which_pretraining_is_as_good():
    errors = {
        trained.START: {100: 9.0, 200: 7.0, 400: 7.5},
        trained.AFTER: {100: 8.0, 200: 6.5, 400: 6.0},
    }
    rows = [
        {"method": method, "tuning_samples": n, "seed": seed, "validation_mm": error + off}
        for method, found in errors.items()
        for n, error in found.items()
        for seed, off in enumerate((-0.1, 0.1))
    ]
    assert trained.needed(rows) == (pytest.approx(7.0), 200, 200)
    rows = [row for row in rows if row["method"] == trained.START or row["tuning_samples"] < 200]
    assert trained.needed(rows)[2] is None


def test_claims_see_a_peak_inside_and_a_collapse(monkeypatch):
    study = STUDIES["noise"]
    peak = {0.0: 0.4, 0.02: 0.5, 0.05: 0.55, 0.1: 0.8, 0.2: 0.5, 0.5: 0.05}
    rows = made_up(study, False, monkeypatch, lambda row: peak[row["training_noise"]])
    assert [claim.verdict for claim in study.claims(rows)] == [HOLDS, HOLDS]
    assert all("10 cm, lies inside" in finding for finding in study.findings(rows))


# ---- the document and the command ---------------------------------------------------------------


def test_the_committed_document_is_what_the_committed_tables_give():
    tables = document.read_tables(DOCS / document.FOLDER)
    assert (DOCS / document.DOCUMENT).read_text() == document.document(tables), document.BUILD
    for name in tables:
        assert (DOCS / document.FOLDER / f"{name}.png").exists()


def test_results_take_what_is_finished_and_keep_the_rest(tmp_path, monkeypatch, capsys):
    out, docs = tmp_path / "out", tmp_path / "docs"
    for name in ("obstacle", "clutter"):
        (out / name).mkdir(parents=True)
        write_rows(out / name / f"{name}.csv", made_up(STUDIES[name], True, monkeypatch))
    words = ["bridgeact", "experiment", "results", f"--out={out}", f"--docs={docs}"]
    assert cli.main(words) == 0 and "obstacle, clutter" in capsys.readouterr().out
    text = (docs / "results.md").read_text()
    assert "Quick runs, whose figures mean nothing: obstacle, clutter." in text
    assert "Not run yet: `bridgeact experiment noise --out=runs/studies`" in text
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (docs / name).read_bytes()[:4] == b"\x89PNG"
    (out / "clutter" / "clutter.csv").unlink()
    assert cli.main(words) == 0 and (docs / "results.md").read_text() == text


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "name one study"),
        (["noises"], "did you mean 'noise'"),
        (["noise", "--checkpoint=x"], "trains its own experts: leave out --checkpoint"),
        (["depth", "--checkpoint=x", "--seeds=0,a"], "'a', which is not a whole number"),
        (["depth", "--checkpoint=x", "--seeds=1,1"], "different numbers"),
    ],
)
def test_mistakes_on_the_command_line(words, message, capsys, tmp_path):
    assert cli.main(["bridgeact", "experiment", *words, f"--out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
