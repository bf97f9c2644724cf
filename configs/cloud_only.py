"""A baseline without a planner: one task, from clouds and the arm's state alone.

    bridgeact demos --task=lift --episodes=200 --out=RLDS
    bridgeact convert --rlds=RLDS --out=STORE
    bridgeact finetune --config=configs/cloud_only.py:lift --store=STORE --workdir=W
    bridgeact evaluate --policy=cloud_only --checkpoint=W --suite=lift --out=OUT

What a diffusion policy on point clouds (3D Diffusion Policy) would make of the same
demonstrations: the guidance is always dropped, the crop takes in the whole table, training starts
from scratch. The word after the colon names the one task that STORE holds; evaluation refuses
others. Nothing tells the policy when it is done: it acts until success or the time limit. Clouds
carry no colour, so it cannot tell an object from its twin and can be right half the time at best
wherever there is one.

Hardware: 2 CPU cores; a few minutes. Expected final loss: not measured.
"""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.sim.tasks import TASKS
from bridgeact_jax.training.config import base_config


def get_config(task: str = "lift"):
    if task not in TASKS:
        raise UsageError(f"configs/cloud_only.py: unknown task '{task}': {nearest(task, TASKS)}")
    config = base_config()
    config.task = task
    config.use_cloud = True
    config.dropout.guidance = 1.0
    config.dropout.cloud = 0.0
    config.model.crop_radius = 1.0
    config.model.points = 256
    config.batch_size = 128
    config.noise_draws = 2
    config.optimizer.learning_rate = 2e-3
    config.steps = 3000
    config.checkpoint_every = 500
    return config
