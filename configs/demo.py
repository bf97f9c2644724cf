"""The demonstration: both stages on scripted demonstrations, in minutes on a laptop.

    bridgeact pretrain --config=configs/demo.py:pretrain --store=STORE --workdir=W0
    bridgeact finetune --config=configs/demo.py:finetune --store=STORE --init=W0 --workdir=W1

Hardware: 2 CPU cores; half a minute and 7 minutes. Data: 480 demonstrations, from
`bridgeact demos --task=reach,lift,pick_and_place --episodes=480`. Expected: a final loss near 0.02
and 0.004, and the success rates in README.md: all measured before the encoder looked twice.
"""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.training.config import base_config

STAGES = ("pretrain", "finetune")


def get_config(stage: str = "pretrain"):
    if stage not in STAGES:
        raise UsageError(f"configs/demo.py: unknown stage '{stage}': {nearest(stage, STAGES)}")
    config = base_config()
    config.batch_size = 128
    config.noise_draws = 2
    config.optimizer.learning_rate = 2e-3
    if stage == "pretrain":
        config.steps = 400
    else:
        config.use_cloud = True
        config.steps = 3000
    config.checkpoint_every = 500
    return config
