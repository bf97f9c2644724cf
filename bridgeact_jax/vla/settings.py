"""The base configuration of the model's training. `configs/chatvla2.py` says what differs."""

import dataclasses

import ml_collections

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.training.options import check_values, loop_options
from bridgeact_jax.vla.experts import MLPS
from bridgeact_jax.vla.sizes import INJECTIONS, VlaConfig
from bridgeact_jax.vla.tokenizer import TOKENS

TRAINED = ("all", "vlm", "experts", "head")
SIZES = {  # 5.9, 151 and 3,576 million parameters; S trains on two CPU cores
    "S": {},
    "M": {"width": 512, "layers": 12, "heads": 8, "mlp_width": 1024, "head_width": 384,
          "head_layers": 12, "head_heads": 6},
    "L": {"width": 1536, "layers": 28, "heads": 12, "mlp_width": 4096, "head_width": 1024,
          "head_layers": 24, "head_heads": 16},
}  # fmt: skip


def base_config(size: str = "S") -> ml_collections.ConfigDict:
    """Every option of a training run with its default; units in the comments.

    Raises UsageError for a size that is not in `SIZES`.
    """
    if size not in SIZES:
        raise UsageError(f"unknown model size '{size}': {nearest(size, SIZES)}")
    config = loop_options()
    config.trained = "all"  # what learns, the rest is frozen; one of TRAINED
    config.robot_share = 0.75  # of a batch; the rest is image-text
    config.steps = 4000
    config.batch_size = 32
    config.noise_draws = 4
    config.checkpoint_every = 500
    config.validation.windows = 256
    config.optimizer.final_share = 0.1  # of the learning rates at the last step
    config.expert = 1  # devices over which the experts are sharded; batches are over all devices

    model = dataclasses.replace(VlaConfig(), **SIZES[size])
    config.model = ml_collections.ConfigDict(dataclasses.asdict(model))

    config.weight = weight = ml_collections.ConfigDict()  # of the three losses
    weight.action = 1.0
    weight.reasoning = 1.0
    weight.imagetext = 1.0
    return config


def vla_config(config: ml_collections.ConfigDict) -> VlaConfig:
    """The model's part of a configuration."""
    fields = config.model.to_dict()
    return VlaConfig(**{**fields, "picture": tuple(fields["picture"])})


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raise UsageError for the first value that training cannot work with."""
    model = config.model
    fixed = model.mlp in ("shared_dynamic", "static_dynamic")
    check_values(
        config,
        {
            "trained": (config.trained in TRAINED, _one_of(TRAINED)),
            "robot_share": (0 <= config.robot_share <= 1, "from 0 to 1"),
            "weight.action": (config.weight.action >= 0, "0 or more"),
            "weight.reasoning": (config.weight.reasoning >= 0, "0 or more"),
            "weight.imagetext": (config.weight.imagetext >= 0, "0 or more"),
            "optimizer.final_share": (0 <= config.optimizer.final_share <= 1, "from 0 to 1"),
            "model.mlp": (model.mlp in MLPS, _one_of(MLPS)),
            "model.injection": (model.injection in INJECTIONS, _one_of(INJECTIONS)),
            "model.picture": (
                len(model.picture) == 2
                and model.patch > 0
                and all(side > 0 and side % model.patch == 0 for side in model.picture),
                f"rows and columns of pixels that config.model.patch = {model.patch} divides",
            ),
            "model.vocabulary": (
                model.vocabulary >= len(TOKENS), f"{len(TOKENS)} or more, the tokens there are"
            ),
            "model.heads": (
                model.heads > 0 and model.width % (2 * model.heads) == 0,
                f"of even width: twice it must divide config.model.width = {model.width}",
            ),
            "model.head_heads": (
                model.head_heads > 0 and model.head_width % model.head_heads == 0,
                f"a divisor of config.model.head_width = {model.head_width}",
            ),
            "model.top_k": (
                1 + fixed <= model.top_k <= model.experts + fixed,
                f"from {1 + fixed} to {model.experts + fixed} with {model.experts} experts to "
                "choose from",
            ),
        },
    )


def _one_of(words: tuple[str, ...]) -> str:
    return f"one of {', '.join(words)}"
