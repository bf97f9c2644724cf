"""Stage 1, action pre-training: trajectories only, no clouds."""

import contextlib

from absl import flags
from ml_collections import config_flags

from bridgeact_jax.errors import UsageError
from bridgeact_jax.training.expert import train
from bridgeact_jax.training.preemption import joined

SHOWN = ("loss", "position_error_mm", "samples_per_second")


def define_flags() -> None:
    """Flags of `bridgeact pretrain`."""
    config_flags.DEFINE_config_file(
        "config", None, "config file, e.g. configs/demo.py:pretrain; --config.key=value overrides"
    )
    flags.DEFINE_string("store", None, "a trajectory store, or several with commas")
    flags.DEFINE_string("mixture", None, "instead: a mixture's name or .toml file, with --stores")
    flags.DEFINE_string("stores", None, "folder that holds the mixture's stores, each by its card")
    flags.DEFINE_string("workdir", None, "where checkpoints and metrics go; resumes if it has any")
    flags.DEFINE_string("init", None, "workdir of a run whose EMA parameters to start from")
    flags.DEFINE_bool("distributed", False, "join the other hosts of the slice or cluster")
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact pretrain`."""
    del argv
    args = flags.FLAGS
    if args.config.use_cloud:
        raise UsageError("pretrain: this config trains with clouds: run `bridgeact finetune`")
    run(args)


def run(args: flags.FlagValues) -> None:
    """Train as the flags say and print where the result lies."""
    with joined() if args.distributed else contextlib.nullcontext():
        figures = train(
            args.config,
            store=args.store,
            mixture=args.mixture,
            stores=args.stores,
            workdir=args.workdir,
            init=args.init,
        )
    shown = ", ".join(f"{name} {figures[name]:.4g}" for name in SHOWN if name in figures)
    shown = shown or "was there already"
    print(f"checkpoint at step {args.config.steps} in {args.workdir}: {shown}")
