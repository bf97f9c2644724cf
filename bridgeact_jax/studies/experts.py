"""Experts that studies train: `configs/expert.py` at a size that two cores can do many times.

Demonstrations are made in five sittings, of 1/16, 1/16, 1/8, 1/4 and 1/2 of the whole, so that a
share of them is the first sittings. A training lies in a folder named after all that it learns
from: studies share what they have in common, and nothing is trained twice.
"""

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections

from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.progress import Progress
from bridgeact_jax.sim.demos import write_demos
from bridgeact_jax.studies.records import Value
from bridgeact_jax.training.checkpoint import describe
from bridgeact_jax.training.config import shipped_config
from bridgeact_jax.training.expert import train
from bridgeact_jax.workers import map_in_processes

TASKS = ("lift", "pick_and_place", "open_drawer", "put_in_drawer")  # demonstrated and evaluated
SITTINGS = (16, 16, 8, 4, 2)  # each is one part in so many of the demonstrations
FIRST_SEED = 500  # of the sittings' demonstrations
MINUTES = 3.0  # of work that a kill may cost


class Budget(NamedTuple):
    """Demonstrations, and steps of both stages, of a study's usual training."""

    demonstrations: int
    stage1: int
    stage2: int


FULL, QUICK = Budget(480, 200, 1200), Budget(32, 8, 16)


class Training(NamedTuple):
    """One run of a stage: what sets it apart from `configs/expert.py`.

    share: of the demonstrations, 1/16, 1/8, ... or 1. changes: (config field with dots, value).
    init: the run it starts from.
    """

    stage: str
    steps: int
    seed: int
    demonstrations: int
    share: float = 1.0
    changes: tuple[tuple[str, Value], ...] = ()
    init: "Training | None" = None

    @property
    def config(self) -> ml_collections.ConfigDict:
        """The run's configuration."""
        config = shipped_config("expert", self.stage)
        config.model.points, config.model.keypoints = 64, 16
        config.seed, config.steps = self.seed, self.steps
        config.optimizer.warmup_steps = min(100, self.steps // 4)
        config.validation.share = 0.1
        config.log_every = max(self.steps // 16, 1)
        config.checkpoint_every, config.checkpoint_minutes = self.steps, MINUTES
        for name, value in self.changes:
            *path, field = name.split(".")
            part = functools.reduce(getattr, path, config)
            if field not in part:
                raise KeyError(name)
            part[field] = value
        return config

    @property
    def identity(self) -> dict:
        """All that its result depends on, as JSON."""
        return {
            "config": self.config.to_dict(),
            "tasks": TASKS,
            "demonstrations": self.demonstrations,
            "share": self.share,
            "init": self.init and self.init.identity,
        }

    @property
    def digest(self) -> str:
        """Eight letters that differ where the identity does."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def chain(self) -> list["Training"]:
        """The runs before this one, and this one."""
        return [*(self.init.chain if self.init else []), self]

    def workdir(self, out: Path) -> Path:
        """Where it lies."""
        return out / "experts" / f"{self.stage}_{self.digest}"

    def stores(self, out: Path) -> list[Path]:
        """The stores it learns from, the first sittings."""
        return stores(out, self.demonstrations)[: _sittings(self.share)]


def stores(out: Path, demonstrations: int) -> list[Path]:
    """Where the sittings' stores lie."""
    folder = out / "demonstrations" / f"{demonstrations}_{'_'.join(TASKS)}"
    return [folder / f"store_{i}" for i in range(len(SITTINGS))]


def _sittings(share: float) -> int:
    held = 0.0
    for number, part in enumerate(SITTINGS, 1):
        held += 1 / part
        if math.isclose(held, share):
            return number
    raise ValueError(f"no number of sittings holds {share} of the demonstrations")


def demonstrate(out: Path, demonstrations: int, workers: int) -> None:
    """Make the sittings that `out` does not hold yet."""
    for number, (store, part) in enumerate(zip(stores(out, demonstrations), SITTINGS, strict=True)):
        if store.exists():
            continue
        rlds = store.with_name(f"rlds_{number}")
        store.parent.mkdir(parents=True, exist_ok=True)
        if not rlds.exists():
            write_demos(
                ",".join(TASKS), demonstrations // part, rlds, seed=FIRST_SEED + number,
                workers=workers,
            )  # fmt: skip
        convert_dataset(rlds, store)


def train_all(trainings: Iterable[Training], out: Path, workers: int) -> None:
    """Train what is not trained yet, and what that starts from; each run's log is in its folder.

    On a CPU several at once, each in a process of one thread, which is faster than one after the
    other in several threads.
    """
    runs = {run.workdir(out): run for training in trainings for run in training.chain}
    missing = [run for workdir, run in runs.items() if not _finished(workdir, run.steps)]
    for demonstrations in sorted({run.demonstrations for run in missing}):
        demonstrate(out, demonstrations, workers)
    for stage in sorted({len(run.chain) for run in missing}):
        jobs = [(run, out) for run in missing if len(run.chain) == stage]
        if jax.default_backend() == "cpu":
            done = map_in_processes(_train, jobs, workers, one_thread=True)
        else:
            done = map(_train, jobs)
        print(f"{len(jobs)} trainings; their logs: {out / 'experts'}/*/log.txt", flush=True)
        with Progress(len(jobs), "trainings", f"training, round {stage}") as progress:
            for _ in done:
                progress.update()


def _train(job: tuple[Training, Path]) -> None:
    run, out = job
    workdir = run.workdir(out)
    workdir.mkdir(parents=True, exist_ok=True)
    with (
        (workdir / "log.txt").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        train(
            run.config,
            store=",".join(map(str, run.stores(out))),
            workdir=workdir,
            init=run.init and run.init.workdir(out),
        )


def _finished(workdir: Path, steps: int) -> bool:
    return (workdir / "checkpoints" / str(steps)).is_dir()


def account(training: Training, out: Path) -> dict[str, Value]:
    """What a training cost and how it did on held-out demonstrations, as columns of the CSV.

    Samples are windows times steps; seconds are those in which steps ran.
    """
    first, last = training.chain[0], training
    two_stages = first is not last
    samples = last.steps * last.config.batch_size
    return {
        "demonstrations": sum(
            training.demonstrations // part for part in SITTINGS[: _sittings(training.share)]
        ),
        "stage1_samples": first.steps * first.config.batch_size if two_stages else 0,
        "stage1_seconds": _seconds(first, out) if two_stages else 0,
        "tuning_samples": samples,
        "cloud_samples": samples if last.config.use_cloud else 0,
        "tuning_seconds": _seconds(last, out),
        "validation_mm": _validation(last.workdir(out)),
    }


def _seconds(run: Training, out: Path) -> int:
    lines = (run.workdir(out) / "metrics.jsonl").read_text().splitlines()
    before, seconds = 0, 0.0
    for line in map(json.loads, lines):
        seconds += (line["step"] - before) * run.config.batch_size / line["samples_per_second"]
        before = line["step"]
    return round(seconds)


def _validation(workdir: Path) -> float | None:
    score = describe(workdir).scores.get("validation_position_mm")
    return None if score is None else round(score, 3)


def two_stages(
    seed: int,
    budget: Budget,
    *,
    changes: Sequence[tuple[str, Value]] = (),
    share: float = 1.0,
    steps: int | None = None,
) -> Training:
    """Stage 1, then stage 2 with clouds, of `steps` where they are not the budget's.

    `changes` are made to both stages.
    """
    common = {
        "seed": seed,
        "demonstrations": budget.demonstrations,
        "share": share,
        "changes": tuple(changes),
    }
    stage1 = Training("pretrain", budget.stage1, **common)
    return Training("finetune", steps or budget.stage2, init=stage1, **common)
