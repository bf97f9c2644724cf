"""What the commands that train have in common: their flags and how they end."""

import contextlib
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import config_flags

from bridgeact_jax.training.preemption import joined


def define_flags(example: str) -> None:
    """The flags of every training command; `example` is a config file to name in their help."""
    config_flags.DEFINE_config_file(
        "config", None, f"config file, e.g. {example}; --config.key=value overrides"
    )
    flags.DEFINE_string("workdir", None, "where checkpoints and metrics go; resumes if it has any")
    flags.DEFINE_string("init", None, "workdir of a run whose EMA parameters to start from")
    flags.DEFINE_bool("distributed", False, "join the other hosts of the slice or cluster")
    flags.mark_flags_as_required(["config", "workdir"])


def run(
    train: Callable[..., dict[str, float]], data: Sequence[str], shown: Sequence[str]
) -> None:
    """Train as the flags say and print where the result lies.

    Args:
      train: of a config, with --workdir, --init and the flags named in `data` by keyword.
      shown: which of the last figures are printed.
    """
    args = flags.FLAGS
    with joined() if args.distributed else contextlib.nullcontext():
        figures = train(
            args.config, **{name: args[name].value for name in (*data, "workdir", "init")}
        )
    said = ", ".join(f"{name} {figures[name]:.4g}" for name in shown if name in figures)
    said = said or "was there already"
    print(f"checkpoint at step {args.config.steps} in {args.workdir}: {said}")
