"""The knowledge test: how much a model still knows, asked in words about pictures.

Right is what is said exactly as the answer. The test is a folder of `bridgeact vla-data
--kind=knowledge`, of things that no training sees.
"""

import os

import numpy as np
from absl import flags

from bridgeact_jax.progress import Progress
from bridgeact_jax.vla.checkpoint import load_vla
from bridgeact_jax.vla.folders import read_imagetext
from bridgeact_jax.vla.scoring import knowledge
from bridgeact_jax.vla.speaker import Speaker

BATCH = 32


def define_flags() -> None:
    """Flags of `bridgeact knowledge`."""
    flags.DEFINE_string("checkpoint", None, "workdir of `bridgeact train-vla`")
    flags.DEFINE_string("test", None, "folder of `bridgeact vla-data --kind=knowledge`")
    flags.mark_flags_as_required(["checkpoint", "test"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact knowledge`."""
    del argv
    counts = examine(flags.FLAGS.checkpoint, flags.FLAGS.test)
    counts["all"] = added(counts)
    for group, (right, asked) in counts.items():
        print(f"{group:<10}{right:>6} of {asked:<6}{100 * right / asked:4.0f} %")


def examine(checkpoint: str | os.PathLike, test: str | os.PathLike) -> dict[str, tuple[int, int]]:
    """(right, asked) by group of questions. Raises UserError for folders of something else."""
    folder = read_imagetext(test)
    speaker, said = Speaker(load_vla(checkpoint), batch=BATCH), []
    with Progress(len(folder.questions), "questions", "knowledge") as progress:
        for first in range(0, len(folder.questions), BATCH):
            part = slice(first, first + BATCH)
            asked = folder.questions[part]
            said += speaker.say(np.asarray(folder.pictures[part]), asked, robot=False)
            progress.update(len(asked))
    return knowledge(said, folder.answers, folder.groups)


def added(counts: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """(right, asked) of all groups."""
    return tuple(map(sum, zip(*counts.values(), strict=True)))
