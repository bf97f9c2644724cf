"""The base configuration of the expert's training. Files under `configs/` say only what differs."""

import dataclasses
import runpy
from pathlib import Path

import ml_collections

from bridgeact_jax.datasets.episode import CLOUD_SHAPE
from bridgeact_jax.datasets.loader import AHEAD
from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.training.options import check_values, loop_options

SIZES = {  # 0.7, 6.5 and 88 million parameters
    "S": {"widths": (64, 128), "condition": 128, "point_widths": (64, 64, 128)},
    "B": {"widths": (256, 512), "condition": 256, "point_widths": (128, 128, 256)},
    "L": {"widths": (512, 1024, 2048), "condition": 512, "point_widths": (256, 256, 512)},
}


def base_config(size: str = "S") -> ml_collections.ConfigDict:
    """Every option of a training run with its default; units in the comments.

    Raises UsageError for a size that is not in `SIZES`.
    """
    if size not in SIZES:
        raise UsageError(f"unknown model size '{size}': {nearest(size, SIZES)}")
    config = loop_options()
    config.use_cloud = False  # stage 2 turns it on
    config.task = ""  # the only one of the data, for a policy that is given no plan
    config.first_step_share = 0.0  # of the draws at the step where sampling starts: pure noise
    config.focus_weight = 3.0  # of the error of where the cloud shows the focus should be
    config.fsdp = 1  # devices over which parameters are sharded; the rest are data parallel

    model = dataclasses.replace(ExpertConfig(), **SIZES[size])
    config.model = ml_collections.ConfigDict(dataclasses.asdict(model))

    config.data = data = ml_collections.ConfigDict()
    data.history = 96  # frames of 0.1 s between a plan and now, at most
    data.waypoints = 12  # of a plan, at most
    data.contact_weight = 3.0

    config.noise = noise = ml_collections.ConfigDict()
    noise.waypoint = 0.03  # m per axis, per waypoint
    noise.common = 0.01  # m per axis, shared by a plan's waypoints
    noise.rotation = 0.0  # rad per axis, per waypoint
    noise.graded = False  # each plan draws its shares of these three: any error up to them
    noise.recovery_position = 0.03  # m per axis: displacement of the current pose
    noise.recovery_rotation = 0.05  # rad per axis
    noise.recovery_slope = 0.2  # less near a gripper event: m per m of distance from it
    noise.recovery_floor = 0.002  # m, at the event itself
    noise.recovery_steps = 5.0  # rows after which the path is reached again

    config.augment = augment = ml_collections.ConfigDict()
    augment.mirror = 0.0  # probability that the scene is mirrored in the plane y = 0
    augment.yaw = 0.0  # rad: the scene is turned about the vertical by up to this, to either side
    augment.past_noise = 0.0  # m per axis of the past poses; a metre for ten radians
    augment.point_noise = 0.0  # m per axis and point of a cloud
    augment.point_dropout = 0.0  # share of a cloud's points that is lost, at most

    config.dropout = dropout = ml_collections.ConfigDict()
    dropout.guidance = 0.1
    dropout.cloud = 0.1
    return config


def expert_config(config: ml_collections.ConfigDict) -> ExpertConfig:
    """The model's part of a configuration."""
    fields = config.model.to_dict()
    return ExpertConfig(**{**fields, "widths": tuple(fields["widths"])})


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raise UsageError for the first value that training cannot work with."""
    model, levels = config.model, len(config.model.widths)
    check_values(
        config,
        {
            "data.history": (config.data.history > 0, "positive"),
            "data.waypoints": (config.data.waypoints > AHEAD, f"more than {AHEAD}"),
            "model.horizon": (
                model.horizon > 0 and model.horizon % 2 ** (levels - 1) == 0,
                f"divisible by {2 ** (levels - 1)}, for {levels} widths",
            ),
            "model.points": (
                0 < model.points <= CLOUD_SHAPE[0],
                f"1 to {CLOUD_SHAPE[0]}, what a stored cloud has",
            ),
        },
    )


def differences(old: dict, new: dict, name: str) -> list[str]:
    """One phrase for each value of nested dicts that differs; tuples and lists compare alike."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        parts = (differences(old.get(key), new.get(key), f"{name}.{key}") for key in keys)
        return [phrase for part in parts for phrase in part]
    old, new = (list(value) if isinstance(value, tuple) else value for value in (old, new))
    return [] if old == new else [f"{name} was {old}, is {new}"]


def shipped_config(name: str, stage: str) -> ml_collections.ConfigDict:
    """`get_config(stage)` of `configs/<name>.py`, from an installed wheel or a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_configs"
    folder = installed if installed.is_dir() else package.parent / "configs"
    return runpy.run_path(str(folder / f"{name}.py"))["get_config"](stage)
