"""ChatVLA-2's stages: image-text pre-training, warm-up of the experts, co-training, the head.

Which of them is what --config says: see configs/chatvla2.py.
"""

import contextlib

from absl import flags
from ml_collections import config_flags

from bridgeact_jax.training.preemption import joined
from bridgeact_jax.vla.learner import train

SHOWN = ("loss", "reasoning_right", "imagetext_right", "position_error_mm", "samples_per_second")


def define_flags() -> None:
    """Flags of `bridgeact train-vla`."""
    config_flags.DEFINE_config_file(
        "config", None, "config file: configs/chatvla2.py:STAGE; --config.key=value overrides"
    )
    flags.DEFINE_list("imagetext", [], "folders of pictures with questions, with commas between")
    flags.DEFINE_list("robot", [], "folders of robot episodes, with commas between")
    flags.DEFINE_string("workdir", None, "where checkpoints and metrics go; resumes if it has any")
    flags.DEFINE_string("init", None, "workdir of the stage before, whose EMA to start from")
    flags.DEFINE_bool("distributed", False, "join the other hosts of the slice or cluster")
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact train-vla`."""
    del argv
    args = flags.FLAGS
    with joined() if args.distributed else contextlib.nullcontext():
        figures = train(
            args.config,
            imagetext=args.imagetext,
            robot=args.robot,
            workdir=args.workdir,
            init=args.init,
        )
    shown = ", ".join(f"{name} {figures[name]:.4g}" for name in SHOWN if name in figures)
    shown = shown or "was there already"
    print(f"checkpoint at step {args.config.steps} in {args.workdir}: {shown}")
