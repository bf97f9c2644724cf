"""Stage 2 as in the paper: fine-tuning with local point clouds, 256 windows a step.

    bridgeact finetune --config=configs/finetune.py:S --store=STORE --init=W0 --workdir=W1

Sizes: S, B, L after the colon, the one that stage 1 (configs/pretrain.py) had. Hardware: one TPU
chip or GPU. Hours and final loss: not measured. The batch and the guidance noise are the paper's;
steps and learning rate are not tuned.
"""

from bridgeact_jax.training.config import base_config


def get_config(size: str = "S"):
    config = base_config(size)
    config.use_cloud = True
    config.batch_size = 256
    config.noise_draws = 2
    config.steps = 20_000
    config.model.dtype = "bfloat16"
    config.noise.waypoint = 0.10
    config.optimizer.warmup_steps = 1000
    return config
