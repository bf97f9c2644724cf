"""Stage 1 as in the paper: action pre-training on trajectories only, 32,768 windows a step.

    bridgeact pretrain --config=configs/pretrain.py:S --mixture=NAME --stores=DIR --workdir=W0

Sizes: S, B, L after the colon (0.7, 6.5 and 88 million parameters). Hardware: a TPU slice;
`bridgeact aot` says which ones it fits (docs/aot.md); hours there are not measured. S on two CPU
cores, --config.accumulate=32: 7 to 10 s a step, loss 0.030 after 220 steps on simple demonstrations
(docs/scale.md). The batch and the guidance noise are the paper's; steps and learning rate are not
tuned.
"""

from bridgeact_jax.training.config import base_config


def get_config(size: str = "S"):
    config = base_config(size)
    config.batch_size = 32_768
    config.steps = 20_000
    config.checkpoint_every = 500
    config.model.dtype = "bfloat16"
    config.noise.waypoint = 0.10
    config.optimizer.warmup_steps = 1000
    return config
