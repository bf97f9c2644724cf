"""ChatVLA-2's stages: image-text pre-training, warm-up of the experts, co-training, the head.

Which of them is what --config says: see configs/chatvla2.py.
"""

from absl import flags

from bridgeact_jax.training import command
from bridgeact_jax.vla.learner import train

SHOWN = ("loss", "reasoning_right", "imagetext_right", "position_error_mm", "samples_per_second")


def define_flags() -> None:
    """Flags of `bridgeact train-vla`."""
    command.define_flags("configs/chatvla2.py:cotrain")
    flags.DEFINE_list("imagetext", [], "folders of pictures with questions, with commas between")
    flags.DEFINE_list("robot", [], "folders of robot episodes, with commas between")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact train-vla`."""
    del argv
    command.run(train, ("imagetext", "robot"), SHOWN)
