"""A card's conventions applied to the columns of one episode."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.spatial.transform import Rotation as ScipyRotation

from bridgeact_jax.datasets.card_format import (
    Camera,
    Card,
    Clock,
    Cloud,
    Column,
    Gripper,
    Position,
    Rotation,
    Width,
)
from bridgeact_jax.datasets.cards import require_convertible
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
LAST_LINE_TOLERANCE = 1e-4
NO_NUMBERS = ("instruction", "cloud")
CAMERA_NUMBERS = {"intrinsics": 9, "pose": 16}

Columns = Mapping[str, np.ndarray | list[bytes]]


def bind_card(card: Card, dataset: RldsDataset) -> dict[str, str]:
    """{table of the card: full key of its column in the dataset}, of `Card.columns`.

    "cloud" is among them only if its points are `CLOUD_SHAPE`, to be copied as they are.
    Raises UserError if the card refuses the dataset, or, naming the card's table, for a key the
    dataset lacks, a column of the wrong kind, or a slice of the wrong width.
    """
    require_convertible(card)
    keys = {}
    for table, column in card.columns().items():
        where = f"card {card.path}: [{table}] key '{column.key}' "
        spec = _find(where, column.key, dataset)
        if table == "instruction":
            if spec.dtype != "text":
                raise UserError(f"{where}holds {spec.dtype}, not text")
        elif table == "cloud":
            _check_cloud(where, spec)
            if spec.shape != CLOUD_SHAPE:
                continue
        else:
            _check_numeric(where, spec, column.slice, _expected_widths(card, table))
        keys[table] = spec.key
    return keys


def bind_camera(card: Card, camera: Camera, dataset: RldsDataset) -> dict[str, str]:
    """{"depth", "intrinsics", "pose": full key in the dataset} of those that are columns.

    Raises UserError for a key the dataset lacks, a depth that is neither picture nor numbers, or
    intrinsics and poses that are not 9 and 16 numbers (of each step or of the episode).
    """
    keys = {}
    for name, key in camera.columns().items():
        where = f"card {card.path}: [[cameras]] {camera.name}: key '{key}' "
        spec = _find(where, key, dataset)
        if name in CAMERA_NUMBERS:
            _check_numeric(where, spec, slice(None), (CAMERA_NUMBERS[name],), per_step=False)
        elif spec.dtype == "text":
            raise UserError(f"{where}holds text, not depth")
        keys[name] = spec.key
    return keys


def interpret_episode(
    card: Card, keys: Mapping[str, str], columns: Columns, index: int
) -> Episode:
    """The episode that `columns` hold, by the card's conventions.

    What the dataset does not record (`Card.recorded`) is filled: rotation with identity, gripper
    with 1, gripper_width with NaN.

    Args:
      keys: from `bind_card`; columns: {full key: (T, ...) array or list of T texts}.
      index: number of the episode in its source.

    Raises RejectedEpisode with the reason if the data cannot be used.
    """
    numeric = {
        table: column for table, column in card.columns().items() if table not in NO_NUMBERS
    }
    steps = len(columns[keys["position"]])
    tables = [*numeric, "cloud"] if "cloud" in keys else [*numeric]
    if any(len(columns[keys[table]]) != steps for table in tables):
        raise RejectedEpisode("columns differ in length")
    if steps < 2:
        raise RejectedEpisode("fewer than 2 steps")
    parts = {table: _flat(columns[keys[table]], column) for table, column in numeric.items()}
    episode = Episode(
        time=_time(card.clock, parts.get("clock"), steps),
        position=_position(card.position, _denormalised("position", parts)),
        rotation=(
            _rotation(card.rotation, _denormalised("rotation", parts))
            if card.rotation
            else np.tile(np.float32([1, 0, 0, 0]), (steps, 1))
        ),
        gripper=(
            _gripper(card.gripper, parts["gripper"][:, 0])
            if card.gripper
            else np.ones(steps, np.float32)
        ),
        gripper_width=(
            _fraction(card.gripper_width, parts["gripper_width"][:, 0]).astype(np.float32)
            if card.gripper_width
            else np.full(steps, np.nan, np.float32)
        ),
        instruction=_first_text(columns[keys["instruction"]]) if card.instruction else "",
        cloud=_cloud(card.cloud, columns[keys["cloud"]]) if "cloud" in keys else None,
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
        matrix = to_matrix(rotation.order, values)[:, :3, :3]
        defect = np.abs(matrix @ np.swapaxes(matrix, -1, -2) - np.eye(3)).max(axis=(-1, -2))
        if (defect > UNIT_TOLERANCE).any() or (np.linalg.det(matrix) < 0).any():
            raise RejectedEpisode("matrix is no rotation")
        result = ScipyRotation.from_matrix(matrix)
    return result.as_quat(scalar_first=True)


def to_matrix(order: str, values: np.ndarray) -> np.ndarray:
    """(T, 3, 3) or (T, 4, 4) matrices of (T, 9) or (T, 16) numbers.

    order: "row", "column", or "detect" (16 numbers only): the order in which all T matrices have
    the last row 0, 0, 0, 1. Raises RejectedEpisode if 16 numbers are no homogeneous transform, or
    both orders fit and differ.
    """
    side = 3 if values.shape[-1] == 9 else 4
    rows = values.reshape(-1, side, side)
    columns = np.swapaxes(rows, -1, -2)
    if side == 3:
        return columns if order == "column" else rows
    candidates = {"row": [rows], "column": [columns], "detect": [rows, columns]}[order]
    fitting = [matrix for matrix in candidates if _is_homogeneous(matrix)]
    if not fitting:
        raise RejectedEpisode("matrix is no homogeneous transform")
    if len(fitting) == 2 and not np.allclose(rows, columns, atol=LAST_LINE_TOLERANCE):
        raise RejectedEpisode("matrix may be row- or column-major: its translation is zero")
    return fitting[0]


def binarise(fraction: np.ndarray, low: float, high: float) -> np.ndarray:
    """(T,) 0 or 1 with hysteresis: 1 above `high`, 0 below `low`, else as before.

    Until the first value outside [low, high] the state is whether the first exceeds their middle.
    """
    return _held(fraction, low, high, before=lambda _: float(fraction[0] > (low + high) / 2))


def hold_changes(fraction: np.ndarray, low: float, high: float) -> np.ndarray:
    """(T,) 0 or 1 by commands to change: 1 above `high`, 0 below `low`, else as before.

    Before the first command the state is the opposite of what it sets; without any it is 1.
    """
    return _held(fraction, low, high, before=lambda first: 1.0 - first)


def _held(
    fraction: np.ndarray, low: float, high: float, before: Callable[[float], float]
) -> np.ndarray:
    """`before` gives the state at the start from the first that is set (0 if none is)."""
    state = np.where(fraction > high, 1.0, np.where(fraction < low, 0.0, np.nan))
    known = ~np.isnan(state)
    if not known[0]:
        state[0] = before(state[known.argmax()] if known.any() else 0.0)
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(state)), 0))
    return state[last_known]


def _find(where: str, key: str, dataset: RldsDataset) -> ColumnSpec:
    spec = dataset.find_column(key)
    if spec is None:
        names = dataset.column_names()
        raise UserError(
            f"{where}is not in {dataset.directory}: "
            f"{nearest(key, names, list_at_most=0)} (columns: {', '.join(names)})"
        )
    return spec


def _expected_widths(card: Card, table: str) -> tuple[int, ...]:
    if table.startswith("position"):
        return (16,) if card.position.convention == "matrix" else (3,)
    if table.startswith("rotation"):
        rotation = card.rotation_action if table == "rotation_action" else card.rotation
        return {
            "quaternion": (4,),
            "euler": (len(rotation.axes),),
            "axis_angle": (3,),
            "matrix": (16,) if rotation.order == "detect" else (9, 16),
        }[rotation.convention]
    return (1,)


def _check_numeric(
    where: str,
    spec: ColumnSpec,
    taken: slice,
    widths: tuple[int, ...],
    *,
    per_step: bool = True,
) -> None:
    if spec.dtype in ("text", "image") or None in spec.shape:
        kind = "a varying shape" if None in spec.shape else spec.dtype
        raise UserError(f"{where}holds {kind}, not numbers of a fixed shape")
    if per_step and not spec.per_step:
        raise UserError(f"{where}is of the episode, not of each step")
    size = int(np.prod(spec.shape))
    width = len(range(size)[taken])
    reach = max(taken.start or 0, taken.stop or 0)
    if width not in widths or reach > size:
        part = "" if taken == slice(None) else f", of which the slice takes {width}"
        part = f", and the slice reaches {reach}" if reach > size else part
        raise UserError(
            f"{where}has {size} numbers a step{part}; "
            f"{' or '.join(map(str, widths))} would be right"
        )


def _check_cloud(where: str, spec: ColumnSpec) -> None:
    if spec.dtype in ("text", "image"):
        raise UserError(f"{where}holds {spec.dtype}, not points")
    if not spec.per_step:
        raise UserError(f"{where}is of the episode, not of each step")
    if len(spec.shape) != 2 or spec.shape[1] != 3 or not spec.shape[0]:
        raise UserError(f"{where}has shape {spec.shape}, not (points, 3)")


def _flat(values: np.ndarray, column: Column) -> np.ndarray:
    return values.reshape(len(values), -1)[:, column.slice].astype(np.float64)


def _denormalised(table: str, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    values = parts[table]
    if f"{table}_low" in parts:
        low, high = parts[f"{table}_low"], parts[f"{table}_high"]
        values = low + values * (high - low)
    if not np.isfinite(values).all():
        raise RejectedEpisode(f"{table} is not finite")
    return values


def _time(clock: Clock, values: np.ndarray | None, steps: int) -> np.ndarray:
    if values is None:
        return np.arange(steps) / clock.hz
    return (values[:, 0] - values[0, 0]) * clock.scale


def _position(position: Position, values: np.ndarray) -> np.ndarray:
    if position.convention == "matrix":
        values = to_matrix(position.order, values)[:, :3, 3]
    return (values * position.scale).astype(np.float32)


def _rotation(rotation: Rotation, values: np.ndarray) -> np.ndarray:
    return align_hemispheres(to_quaternion(rotation, values)).astype(np.float32)


def _is_homogeneous(matrices: np.ndarray) -> bool:
    return bool(np.abs(matrices[:, 3] - [0, 0, 0, 1]).max() <= LAST_LINE_TOLERANCE)


def _fraction(ends: Gripper | Width, values: np.ndarray) -> np.ndarray:
    return np.clip((values - ends.closed) / (ends.open - ends.closed), 0.0, 1.0)


def _gripper(gripper: Gripper, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise RejectedEpisode("gripper is not finite")
    fraction = _fraction(gripper, values)
    if gripper.source == "width":
        fraction = binarise(fraction, *gripper.thresholds)
    elif gripper.source == "change":
        fraction = hold_changes(fraction, *gripper.thresholds)
    return fraction.astype(np.float32)


def _cloud(cloud: Cloud, values: np.ndarray) -> np.ndarray:
    return (values * np.float32(cloud.scale)).astype(np.float16)


def _first_text(values: list[bytes]) -> str:
    texts = (value.decode("utf-8", "replace").strip() for value in values)
    return next((text for text in texts if text), "")
