"""Runs any study: trainings, then one evaluation of all cells, then the CSV.

Everything that is finished is kept, by the training loop, by the evaluation and here, so that the
same command goes on after a kill.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridgeact_jax import __version__
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation.checkpoints import check_checkpoint, latest_step
from bridgeact_jax.evaluation.conditions import AXES
from bridgeact_jax.evaluation.evaluate import evaluate
from bridgeact_jax.files import write_text
from bridgeact_jax.studies import experts
from bridgeact_jax.studies.records import Row, Value, read_rows, write_rows
from bridgeact_jax.studies.study import Cell, Scope, Study
from bridgeact_jax.training.config import differences

IDENTITY = "study.json"  # what the folder is a study of
MEASURED = "measured.json"
SHOWN = 4  # differences in a message, at most
TRAINED, AT_STEP = "trained", " at step "  # of the column `expert`


def run_study(study: Study, scope: Scope, out: Path, *, workers: int, command: str) -> list[Row]:
    """Run what `out` does not hold yet of the study; returns the rows of its CSV.

    The study's own files lie in `out/NAME`; demonstrations and trainings, which studies share, in
    `out/demonstrations`, `out/experts` and `scope.chatvla`. Raises UsageError if `out/NAME` holds
    the study with other settings.
    """
    if study.prepare is not None:
        study.prepare(scope, workers)
    cells = study.cells(scope)
    for policy, checkpoint in _given(cells):
        check_checkpoint(policy, checkpoint, scope.tasks, command="experiment")
    settings = settings_of(cells)
    labels = labels_of(settings)
    folder = out / study.name
    pairs = list(zip(labels, cells, strict=True))
    identity = {
        **scope._asdict(),
        "steps": {checkpoint: latest_step(checkpoint) for checkpoint in _checkpoints(cells)},
        "trained": {label: cell.training.digest for label, cell in pairs if cell.training},
        "version": __version__,
    }
    _claim(folder, identity)
    trainings = [cell.training for cell in cells if cell.training is not None]
    experts.train_all(trainings, out, workers)
    cells = [_with_checkpoint(cell, out) for cell in cells]
    results = evaluate(
        {label: cell.condition for label, cell in zip(labels, cells, strict=True)},
        scope.tasks,
        episodes=scope.episodes,
        workers=workers,
        out=folder / "evaluation",
        suite=",".join(scope.tasks),
        videos={},
        attributed=False,
        title=study.question,
        notes=[study.fair, *(["A quick run: the figures mean nothing."] if scope.quick else [])],
        commands=[command],
    )
    measured = _measured(folder, dict(zip(labels, cells, strict=True)))
    rows = []
    for label, cell, own, result in zip(labels, cells, settings, results, strict=True):
        more = dict(measured.get(label, {}))
        if cell.training is not None:
            more |= experts.account(cell.training, out)
        rows += [
            {
                "study": study.name,
                "size": "quick" if scope.quick else "full",
                **own,
                "task": task,
                **{name: found[name] for name in ("horizon", "successes", "episodes")},
                "low": round(found["ci95"][0], 4),
                "high": round(found["ci95"][1], 4),
                **{name: found[name] for name in ("wrong_object", "invalid")},
                **_thought(found),
                **more,
            }
            for task, found in result["tasks"].items()
        ]
    path = folder / f"{study.name}.csv"
    write_rows(path, rows)
    return read_rows(path)


def settings_of(cells: Sequence[Cell]) -> list[dict[str, Value]]:
    """Each cell's settings: its labels, policy, arm, seed, and every axis that is on in any cell.

    Settings have the same names in all cells; what a cell does not say is None.
    """
    found = []
    for cell in cells:
        condition = cell.condition
        trained = cell.training is not None
        found.append(
            {
                **cell.labels,
                "policy": condition.policy,
                "expert": TRAINED if trained else _name(condition.checkpoint),
                "arm": condition.arm,
                **condition.axes,
                **condition.planning,
                **condition.sampler,
                "seed": cell.training.seed if trained else condition.seed,
            }
        )
    names = dict.fromkeys(name for one in found for name in one if name != "seed")
    off = {name: axis.default for name, axis in AXES.items()} | {"guard": False, "replan": False}
    return [{name: one.get(name, off.get(name)) for name in [*names, "seed"]} for one in found]


def labels_of(settings: Sequence[Mapping[str, Value]]) -> list[str]:
    """A name for each cell: the settings in which cells differ."""
    varied = [name for name in settings[0] if len({one[name] for one in settings}) > 1]
    return [
        ", ".join(f"{name} {one[name]}" for name in varied if one[name] is not None) or "all"
        for one in settings
    ]


@functools.cache
def _name(checkpoint: str | None) -> str | None:
    return checkpoint and f"{Path(checkpoint).name}{AT_STEP}{latest_step(checkpoint)}"


def _given(cells: Sequence[Cell]) -> list[tuple[str, str | None]]:
    """Each policy with the checkpoint that it is given."""
    acting = [c.condition for c in cells if c.training is None and c.condition.policy != "spline"]
    return list(dict.fromkeys((one.policy, one.checkpoint) for one in acting))


def _checkpoints(cells: Sequence[Cell]) -> list[str]:
    """Those that policies and planners are given."""
    planners = [cell.condition.planner_checkpoint for cell in cells]
    return list(dict.fromkeys(c for c in [*(given for _, given in _given(cells)), *planners] if c))


def _thought(found: Mapping) -> dict[str, int]:
    """A task's points, added up over its episodes, and texts that were no thought."""
    if "points" not in found:
        return {}
    points = {name: one["total"] for name, one in found["points"].items()}
    return {**points, "unparsable": found["unparsable"]}


def _with_checkpoint(cell: Cell, out: Path) -> Cell:
    if cell.training is None:
        return cell
    checkpoint = str(cell.training.workdir(out))
    return cell._replace(condition=dataclasses.replace(cell.condition, checkpoint=checkpoint))


def _claim(folder: Path, identity: Mapping) -> None:
    identity = json.loads(json.dumps(identity))
    path = folder / IDENTITY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else None
        if before is None and any(folder.iterdir()):
            raise UsageError(f"{folder} holds something else than a study: choose another --out")
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder}: cannot be used: {error}") from None
    if before is None:
        write_text(path, json.dumps(identity, indent=1))
        return
    found = [phrase.lstrip(".") for phrase in differences(before, identity, "")]
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UsageError(
            f"{folder} holds this study with other settings: {'; '.join(found[:SHOWN])}{more}; "
            "repeat its command or choose another --out"
        )


def _measured(folder: Path, cells: Mapping[str, Cell]) -> dict[str, dict[str, float]]:
    """What cells measure beside their episodes, by label; each once."""
    path = folder / MEASURED
    found = json.loads(path.read_text()) if path.exists() else {}
    for label, cell in cells.items():
        if cell.measure is not None and label not in found:
            found[label] = cell.measure(cell.condition)
            write_text(path, json.dumps(found, indent=1))
    return found
