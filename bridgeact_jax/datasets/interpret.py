"""A card's conventions applied to the columns of one episode."""

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation as ScipyRotation

from bridgeact_jax.datasets.cards import Card, Clock, Column, Gripper, Rotation, Width
from bridgeact_jax.datasets.episode import (
    CLOUD_SHAPE,
    Episode,
    RejectedEpisode,
    align_hemispheres,
    check_episode,
)
from bridgeact_jax.datasets.rlds_reader import ColumnSpec, RldsDataset
from bridgeact_jax.errors import UserError, nearest

UNIT_TOLERANCE = 0.02

Columns = Mapping[str, np.ndarray | list[bytes]]


def bind_card(card: Card, dataset: RldsDataset) -> dict[str, str]:
    """{table of the card: full key of its column in the dataset}.

    Raises UserError, naming the card's table, for a key the dataset lacks, a column of the wrong
    kind, or a slice of the wrong width.
    """
    keys = {}
    for table, column in card.columns().items():
        where = f"card {card.path}: [{table}] "
        spec = dataset.find_column(column.key)
        if spec is None:
            names = dataset.column_names()
            raise UserError(
                f"{where}key '{column.key}' is not in {dataset.directory}: "
                f"{nearest(column.key, names, list_at_most=0)} (columns: {', '.join(names)})"
            )
        if table == "instruction":
            if spec.dtype != "text":
                raise UserError(f"{where}key '{column.key}' holds {spec.dtype}, not text")
        else:
            _check_numeric(where, table, column, spec, _expected_width(card, table))
        keys[table] = spec.key
    return keys


def interpret_episode(
    card: Card, keys: Mapping[str, str], columns: Columns, index: int
) -> Episode:
    """The episode that `columns` hold, by the card's conventions.

    Args:
      keys: from `bind_card`; columns: {full key: (T, ...) array or list of T texts}.
      index: number of the episode in its source.

    Raises RejectedEpisode with the reason if the data cannot be used.
    """
    parts = {
        table: _flat(columns[keys[table]], column)
        for table, column in card.columns().items()
        if table not in ("instruction", "cloud")
    }
    steps = len(parts["position"])
    cloud = columns[keys["cloud"]] if card.cloud else None
    lengths = {len(part) for part in parts.values()} | ({len(cloud)} if card.cloud else set())
    if lengths != {steps}:
        raise RejectedEpisode("columns differ in length")
    if steps < 2:
        raise RejectedEpisode("fewer than 2 steps")
    width = parts.get("gripper_width")
    episode = Episode(
        time=_time(card.clock, parts.get("clock"), steps),
        position=(parts["position"] * card.position.scale).astype(np.float32),
        rotation=_rotation(card.rotation, parts["rotation"]),
        gripper=_gripper(card.gripper, parts["gripper"][:, 0]),
        gripper_width=(
            np.full(steps, np.nan, np.float32)
            if width is None
            else _fraction(card.gripper_width, width[:, 0]).astype(np.float32)
        ),
        instruction=_first_text(columns[keys["instruction"]]) if card.instruction else "",
        cloud=None if cloud is None else cloud.astype(np.float16, copy=False),
        index=index,
    )
    check_episode(episode)
    return episode


def to_quaternion(rotation: Rotation, values: np.ndarray) -> np.ndarray:
    """(T, 4) float64 wxyz unit quaternions of (T, n) numbers in the card's convention.

    Raises RejectedEpisode for a quaternion or matrix that is no rotation.
    """
    if rotation.convention == "quaternion":
        if (np.abs(np.linalg.norm(values, axis=-1) - 1.0) > UNIT_TOLERANCE).any():
            raise RejectedEpisode("quaternion is not of unit length")
        result = ScipyRotation.from_quat(values, scalar_first=rotation.order == "wxyz")
    elif rotation.convention == "euler":
        axes = rotation.axes.upper() if rotation.order == "intrinsic" else rotation.axes
        result = ScipyRotation.from_euler(axes, values, degrees=rotation.unit == "deg")
    elif rotation.convention == "axis_angle":
        result = ScipyRotation.from_rotvec(values, degrees=rotation.unit == "deg")
    else:
        matrix = _matrix(rotation, values)
        defect = np.abs(matrix @ np.swapaxes(matrix, -1, -2) - np.eye(3)).max(axis=(-1, -2))
        if (defect > UNIT_TOLERANCE).any() or (np.linalg.det(matrix) < 0).any():
            raise RejectedEpisode("matrix is no rotation")
        result = ScipyRotation.from_matrix(matrix)
    return result.as_quat(scalar_first=True)


def binarise(fraction: np.ndarray, low: float, high: float) -> np.ndarray:
    """(T,) 0 or 1 with hysteresis: 1 above `high`, 0 below `low`, else as before.

    Until the first value outside [low, high] the state is whether the first exceeds their middle.
    """
    state = np.where(fraction > high, 1.0, np.where(fraction < low, 0.0, np.nan))
    if np.isnan(state[0]):
        state[0] = float(fraction[0] > (low + high) / 2)
    last_known = np.maximum.accumulate(np.where(np.isnan(state), 0, np.arange(len(state))))
    return state[last_known]


def _expected_width(card: Card, table: str) -> tuple[int, ...]:
    if table == "position":
        return (3,)
    if table == "rotation":
        return {
            "quaternion": (4,),
            "euler": (len(card.rotation.axes),),
            "axis_angle": (3,),
            "matrix": (9, 16),
        }[card.rotation.convention]
    if table == "cloud":
        return (int(np.prod(CLOUD_SHAPE)),)
    return (1,)


def _check_numeric(
    where: str, table: str, column: Column, spec: ColumnSpec, widths: tuple[int, ...]
) -> None:
    if spec.dtype in ("text", "image") or None in spec.shape:
        kind = "a varying shape" if None in spec.shape else spec.dtype
        raise UserError(f"{where}key '{column.key}' holds {kind}, not numbers of a fixed shape")
    if not spec.per_step:
        raise UserError(f"{where}key '{column.key}' is of the episode, not of each step")
    if table == "cloud" and spec.shape != CLOUD_SHAPE:
        raise UserError(f"{where}key '{column.key}' has shape {spec.shape}, not {CLOUD_SHAPE}")
    size = int(np.prod(spec.shape))
    width = len(range(size)[column.slice])
    wanted = " or ".join(map(str, widths))
    reach = max(column.slice.start or 0, column.slice.stop or 0)
    if width not in widths or reach > size:
        taken = "" if column.slice == slice(None) else f", of which the slice takes {width}"
        taken = f", and the slice reaches {reach}" if reach > size else taken
        raise UserError(
            f"{where}key '{column.key}' has {size} numbers a step{taken}; {wanted} would be right"
        )


def _flat(values: np.ndarray, column: Column) -> np.ndarray:
    return values.reshape(len(values), -1)[:, column.slice].astype(np.float64)


def _time(clock: Clock, values: np.ndarray | None, steps: int) -> np.ndarray:
    if values is None:
        return np.arange(steps) / clock.hz
    return (values[:, 0] - values[0, 0]) * clock.scale


def _rotation(rotation: Rotation, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise RejectedEpisode("rotation is not finite")
    return align_hemispheres(to_quaternion(rotation, values)).astype(np.float32)


def _matrix(rotation: Rotation, values: np.ndarray) -> np.ndarray:
    side = 3 if values.shape[-1] == 9 else 4
    matrix = values.reshape(-1, side, side)
    if rotation.order == "column":
        matrix = np.swapaxes(matrix, -1, -2)
    return matrix[:, :3, :3]


def _fraction(ends: Gripper | Width, values: np.ndarray) -> np.ndarray:
    return np.clip((values - ends.closed) / (ends.open - ends.closed), 0.0, 1.0)


def _gripper(gripper: Gripper, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise RejectedEpisode("gripper is not finite")
    fraction = _fraction(gripper, values)
    if gripper.source == "width":
        fraction = binarise(fraction, *gripper.thresholds)
    return fraction.astype(np.float32)


def _first_text(values: list[bytes]) -> str:
    texts = (value.decode("utf-8", "replace").strip() for value in values)
    return next((text for text in texts if text), "")
