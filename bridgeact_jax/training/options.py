"""The options of any model's training: what the loop and the optimiser read."""

import functools
import importlib.util

import ml_collections

from bridgeact_jax.errors import UsageError


def loop_options() -> ml_collections.ConfigDict:
    """The options that every model's base configuration begins with; units in the comments."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.batch_size = 256  # global
    config.accumulate = 1  # micro-batches a step: less memory, the same result
    config.noise_draws = 1  # noisy chunks denoised for each encoded observation
    config.log_every = 50  # steps
    config.checkpoint_every = 1000  # steps
    config.checkpoint_minutes = 0.0  # also after so many, seen when logging; 0 for never
    config.checkpoints_kept = 2
    config.skip_nonfinite = 0  # steps that are not finite are passed over, up to so many
    config.profile_steps = (0, 0)  # first and last of a profiler trace; (0, 0) for none
    config.wandb = ""  # project to report to as well; empty for none

    config.validation = validation = ml_collections.ConfigDict()
    validation.share = 0.02  # of the episodes or samples of each source, held out from training
    validation.windows = 1024  # of them, the same at each planned checkpoint

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.learning_rate = 1e-3
    optimizer.muon_learning_rate = 0.0  # of matrices but a mixture's experts, by Muon; 0 for AdamW
    optimizer.warmup_steps = 100
    optimizer.weight_decay = 1e-4
    optimizer.clip_norm = 1.0
    optimizer.ema_decay = 0.999
    return config


def check_values(
    config: ml_collections.ConfigDict, rules: dict[str, tuple[bool, str]]
) -> None:
    """Raise UsageError for the first value that the loop, or one of a model's `rules`, refuses.

    rules: by the value's name, whether it holds and what would be right.
    """
    loop = {
        "steps": (config.steps > config.optimizer.warmup_steps, "> optimizer.warmup_steps"),
        "batch_size": (config.batch_size > 0, "positive"),
        "accumulate": (
            config.accumulate > 0 and config.batch_size % config.accumulate == 0,
            f"a divisor of config.batch_size = {config.batch_size}",
        ),
        "noise_draws": (config.noise_draws > 0, "positive"),
        "log_every": (config.log_every > 0, "positive"),
        "checkpoint_every": (config.checkpoint_every > 0, "positive"),
        "checkpoint_minutes": (config.checkpoint_minutes >= 0, "0 or more"),
        "checkpoints_kept": (config.checkpoints_kept > 0, "positive"),
        "skip_nonfinite": (config.skip_nonfinite >= 0, "0 or more"),
        "profile_steps": (
            len(config.profile_steps) == 2 and config.profile_steps[0] <= config.profile_steps[1],
            "the first and the last step of a trace",
        ),
        "wandb": (
            not config.wandb or importlib.util.find_spec("wandb") is not None,
            "empty, unless the package is installed (`.venv/bin/uv pip install wandb`)",
        ),
        "seed": (config.seed >= 0, "0 or more"),
        "validation.share": (0 <= config.validation.share < 1, "0 or more and less than 1"),
        "validation.windows": (config.validation.windows > 0, "positive"),
        "model.dtype": (config.model.dtype in ("float32", "bfloat16"), "float32 or bfloat16"),
    }
    for name, (holds, right) in (loop | rules).items():
        if not holds:
            value = functools.reduce(getattr, name.split("."), config)
            raise UsageError(f"config.{name} = {value} must be {right}")
