"""ChatVLA-2 in four stages, each from the one before (arXiv 2505.21906).

    bridgeact train-vla --config=configs/chatvla2.py:dense --imagetext=I --workdir=W0
    bridgeact train-vla --config=configs/chatvla2.py:warmup --imagetext=I --init=W0 --workdir=W1
    bridgeact train-vla --config=configs/chatvla2.py:cotrain --imagetext=I --robot=R --init=W1 \
        --workdir=W2
    bridgeact train-vla --config=configs/chatvla2.py:head --robot=R --init=W2 --workdir=W3

dense: image-text pre-training of a model with plain MLPs; what it knows is what the later stages
should keep. warmup: its MLPs become the experts, and only they and their routers learn. cotrain:
image-text and robot 1 : 3, all three losses, everything learns. head: the whole VLM is frozen.
I and R are folders of `bridgeact vla-data`, several with commas between. A size (S, M, L) may
follow the stage, as in `cotrain:M`; variants are one override away, e.g. --config.model.mlp=dense,
--config.model.injection=all.

The paper's: the stages, 1 : 3, a cosine to a tenth of the peak; its peak of 2e-5 is for 2 B
parameters, those here are not tuned. Hardware: 2 CPU cores for S. Hours and scores: not measured.
"""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.vla.settings import base_config

STAGES = ("dense", "warmup", "cotrain", "head")
SHORT = 48  # tokens: questions and answers


def get_config(stage: str = "cotrain"):
    stage, _, size = stage.partition(":")
    if stage not in STAGES:
        raise UsageError(f"configs/chatvla2.py: unknown stage '{stage}': {nearest(stage, STAGES)}")
    config = base_config(size or "S")
    if stage in ("dense", "warmup"):
        config.trained = "vlm" if stage == "dense" else "experts"
        config.robot_share = 0.0
        config.batch_size = 64
        config.steps = 6000 if stage == "dense" else 1000
        config.model.text_length = SHORT
        if stage == "dense":
            config.model.mlp = "dense"
    elif stage == "cotrain":
        config.optimizer.learning_rate = 5e-4
    else:
        config.trained = "head"
        config.robot_share = 1.0
        config.noise_draws = 8
        config.steps = 2000
    return config
