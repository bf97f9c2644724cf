"""The expert that ships: both stages, on demonstrations of nine tasks and two that are practised.

    bridgeact rebuild --out=runs/expert      # all of it, or stage by stage:
    bridgeact pretrain --config=configs/expert.py:pretrain --store=STORES --workdir=W0
    bridgeact finetune --config=configs/expert.py:finetune --store=STORES --init=W0 --workdir=W1

STORES: the sittings of demonstrations that bridgeact_jax/rebuild.py lists, with commas between.
Hardware: 2 CPU cores; 2 minutes and 45 minutes.
Score: docs/expert.md.
"""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.training.config import base_config

STAGES = ("pretrain", "finetune")


def get_config(stage: str = "finetune"):
    if stage not in STAGES:
        raise UsageError(f"configs/expert.py: unknown stage '{stage}': {nearest(stage, STAGES)}")
    config = base_config()
    config.first_step_share = 0.5
    config.model.points = 192
    config.model.keypoints = 32
    config.noise.waypoint = 0.04
    config.noise.common = 0.04
    config.noise.graded = True
    config.augment.mirror = 0.5
    config.augment.yaw = 0.3
    config.augment.past_noise = 0.01
    config.augment.point_noise = 0.001
    config.augment.point_dropout = 0.5
    config.optimizer.learning_rate = 2e-3
    config.optimizer.muon_learning_rate = 5e-3
    config.checkpoint_every = 1000
    if stage == "pretrain":
        config.batch_size = 512
        config.steps = 500
    else:
        config.use_cloud = True
        config.batch_size = 128
        config.noise_draws = 2
        config.steps = 11_000
    return config
