"""The expert that ships, rebuilt from nothing: demonstrations, both stages, export.

Demonstrations are made in sittings, so that what a kill interrupts is minutes of work. How long it
takes on what, and how good the result is, says configs/expert.py.
"""

import shutil
from pathlib import Path

from absl import flags

from bridgeact_jax.pipeline import Diary, Sitting, build_expert, claim
from bridgeact_jax.training.config import shipped_config
from bridgeact_jax.training.export import export

SITTINGS = (
    *(Sitting("all", 450, seed) for seed in (11, 12, 13, 14)),
    # Short episodes, which the others' would drown.
    Sitting("push_into_bay", 450, 15),
    Sitting("reach", 450, 16),
    Sitting("tap_block,tap_post", 300, 17),
)


def define_flags() -> None:
    """Flags of `bridgeact rebuild`."""
    flags.DEFINE_string("out", "runs/expert", "directory for everything on the way")
    flags.DEFINE_integer("workers", 2, "processes that make demonstrations", lower_bound=1)


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact rebuild`."""
    del argv
    out, diary = Path(flags.FLAGS.out), Diary()
    claim(out, {"expert": SITTINGS})
    configs = {stage: shipped_config("expert", stage) for stage in ("pretrain", "finetune")}
    _, expert = build_expert(
        out, diary, sittings=SITTINGS, configs=configs, workers=flags.FLAGS.workers
    )
    exported = out / "exported"
    diary.say(f"weights in bfloat16, with a model card: {exported}")
    shutil.rmtree(exported, ignore_errors=True)
    export(expert, exported, dtype="bfloat16")
    diary.say(f"done; next: bridgeact evaluate --checkpoint={exported} --suite=all --out=...")
