"""Stage 1, action pre-training: trajectories only, no clouds."""

from absl import flags

from bridgeact_jax.errors import UsageError
from bridgeact_jax.training import command
from bridgeact_jax.training.expert import train

SHOWN = ("loss", "position_error_mm", "samples_per_second")


def define_flags() -> None:
    """Flags of `bridgeact pretrain`."""
    command.define_flags("configs/demo.py:pretrain")
    flags.DEFINE_string("store", None, "a trajectory store, or several with commas")
    flags.DEFINE_string("mixture", None, "instead: a mixture's name or .toml file, with --stores")
    flags.DEFINE_string("stores", None, "folder that holds the mixture's stores, each by its card")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact pretrain`."""
    del argv
    if flags.FLAGS.config.use_cloud:
        raise UsageError("pretrain: this config trains with clouds: run `bridgeact finetune`")
    run()


def run() -> None:
    """Train the expert as the flags say and print where the result lies."""
    command.run(train, ("store", "mixture", "stores"), SHOWN)
