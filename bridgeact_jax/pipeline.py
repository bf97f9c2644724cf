"""From nothing to an expert: demonstrations, RLDS, stores, stage 1, stage 2.

Each part is what its own command does. What is there already is kept, so that a run which was
killed goes on where it stood.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ml_collections

from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.files import write_text
from bridgeact_jax.sim.demos import write_demos
from bridgeact_jax.training.expert import train

MARKER = "pipeline.json"


class Sitting(NamedTuple):
    """So many demonstrations from one seed of the named tasks, with commas between.

    "all" are those that are not held out.
    """

    tasks: str
    episodes: int
    seed: int


class Diary:
    """Says which part begins, and after how many minutes."""

    def __init__(self):
        self._started = time.monotonic()

    def say(self, part: str) -> None:
        """Print a line."""
        print(f"[{(time.monotonic() - self._started) / 60:4.1f} min] {part}", flush=True)


def build_expert(
    out: Path,
    diary: Diary,
    *,
    sittings: Sequence[Sitting],
    configs: dict[str, ml_collections.ConfigDict],
    workers: int,
) -> tuple[Path, Path]:
    """Make what `out` does not hold yet; returns the workdirs of stage 1 and stage 2.

    Args:
      sittings: of demonstrations, each with a seed of its own.
      configs: of the stages, "pretrain" and "finetune".
    """
    stores = []
    for tasks, episodes, seed in sittings:
        rlds, store = out / f"rlds_{seed}", out / f"store_{seed}"
        diary.say(f"{episodes} scripted demonstrations in MuJoCo, written as RLDS: {rlds}")
        write = partial(write_demos, tasks, episodes, rlds, seed=seed, workers=workers)
        _unless_there(rlds, write)
        diary.say(f"RLDS to a trajectory store: {store}")
        _unless_there(store, partial(convert_dataset, rlds, store))
        stores.append(os.fspath(store))
    blind, expert = out / "pretrain", out / "finetune"
    diary.say(f"stage 1, trajectories only: {blind}")
    train(configs["pretrain"], store=",".join(stores), workdir=blind)
    diary.say(f"stage 2, with point clouds: {expert}")
    train(configs["finetune"], store=",".join(stores), workdir=expert, init=blind)
    return blind, expert


def claim(out: Path, what: dict) -> None:
    """Mark `out` as the place of `what` (JSON); it must be new, empty, or marked so already.

    Raises UsageError if it holds anything else.
    """
    marker, text = out / MARKER, json.dumps(what)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not any(out.iterdir()):
            write_text(marker, text)
        elif not marker.exists() or marker.read_text() != text:
            raise UsageError(
                f"--out={out} holds something else than {what}: choose another folder"
            )
    except OSError as error:
        raise UserError(f"--out={out}: cannot be used: {error.strerror}") from None


def _unless_there(path: Path, make: Callable) -> None:
    if path.exists():
        print(f"  {path} is there already")
    else:
        make()
