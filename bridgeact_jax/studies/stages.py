"""What the studies of ChatVLA-2 share: its data and its trainings, in one folder.

`imagetext`, `knowledge`, `math` and `toy` are folders of `bridgeact vla-data`; the others are
workdirs of `bridgeact train-vla`. What is there and finished is taken as it is, however it was
made; what is missing is made as `configs/chatvla2.py` says.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import ml_collections

from bridgeact_jax.errors import UserError
from bridgeact_jax.studies.records import Value
from bridgeact_jax.training.checkpoint import describe
from bridgeact_jax.training.config import shipped_config
from bridgeact_jax.vla.data import PLAYED, write_episodes, write_imagetext
from bridgeact_jax.vla.learner import train

QUESTIONS, TEST = "imagetext", "knowledge"
TEST_SEED = 1
QUICK_STEPS = 2


class Amounts(NamedTuple):
    """Samples of image-text, questions of the knowledge test, demonstrations of each world."""

    samples: int
    questions: int
    demonstrations: int


FULL, QUICK = Amounts(20000, 1100, 1000), Amounts(64, 20, 4)


class Stage(NamedTuple):
    """A training: the name of its folder, its stage in `configs/chatvla2.py`, what it starts from,
    and (config field, value) that set it apart from that stage.
    """

    name: str
    stage: str
    init: "Stage | None" = None
    changes: tuple[tuple[str, Value], ...] = ()

    @property
    def chain(self) -> list["Stage"]:
        """The trainings before this one, and this one."""
        return [*(self.init.chain if self.init else []), self]

    def config(self, quick: bool) -> ml_collections.ConfigDict:
        """Its configuration; a quick one takes `QUICK_STEPS` small steps."""
        config = shipped_config("chatvla2", self.stage)
        config.update_from_flattened_dict(dict(self.changes))
        if quick:
            config.steps, config.batch_size, config.noise_draws = QUICK_STEPS, 4, 1
            config.optimizer.warmup_steps, config.validation.windows = 1, 4
        return config


DENSE = Stage("dense", "dense")
WARMUP = Stage("warmup", "warmup", DENSE)
COTRAIN = Stage("cotrain", "cotrain", WARMUP)
HEAD = Stage("head", "head", COTRAIN)
HEAD_ALONE = Stage("head_alone", "head", WARMUP)
TUNING = (500, 1000, 2000, 4000)  # steps of a planner's fine-tuning at which it is examined


def tuned(steps: int) -> Stage:
    """A planner after so many steps on robot texts alone, at a constant rate; 0 is the warm-up.

    Each goes on from the one of fewer steps, so that all of them cost as much as the last.
    """
    if steps == 0:
        return WARMUP
    before = max((fewer for fewer in TUNING if fewer < steps), default=0)
    changes = (
        ("trained", "vlm"), ("robot_share", 1.0), ("weight.action", 0.0), ("noise_draws", 1),
        ("optimizer.final_share", 1.0), ("steps", steps - before), ("seed", steps),
    )  # fmt: skip
    return Stage(f"tuned_{steps}", "cotrain", tuned(before), changes)


def prepare(folder: str, last: Iterable[Stage], *, quick: bool, workers: int) -> None:
    """Make what `folder` does not hold yet of the data, the trainings `last` and those before them.

    Killed at any moment, it goes on where it was. Raises UserError for what is there and damaged,
    or unfinished and of another configuration.
    """
    place = Path(folder)
    _make_data(place, QUICK if quick else FULL, workers)
    for run in dict.fromkeys(part for end in last for part in end.chain):
        workdir, config = place / run.name, run.config(quick)
        if finished(workdir):
            continue
        print(f"{workdir}: training", flush=True)
        worlds = [place / kind for kind in PLAYED]
        train(
            config,
            workdir=workdir,
            imagetext=[place / QUESTIONS] if config.robot_share < 1 else [],
            robot=worlds if config.robot_share > 0 else [],
            init=run.init and place / run.init.name,
        )


def finished(workdir: str | os.PathLike) -> bool:
    """Whether a training in `workdir` has come to the end that its own configuration sets."""
    try:
        origin = describe(workdir)
    except UserError:
        return False
    return origin.step >= origin.config.steps


def _make_data(place: Path, amounts: Amounts, workers: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    drawn = {QUESTIONS: (amounts.samples, False, 0), TEST: (amounts.questions, True, TEST_SEED)}
    for name, (samples, test, seed) in drawn.items():
        if not (place / name).exists():
            write_imagetext(place / name, samples, test=test, seed=seed, workers=workers)
    for kind in PLAYED:
        if not (place / kind).exists():
            write_episodes(place / kind, kind, amounts.demonstrations, workers=workers)
