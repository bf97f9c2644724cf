"""A card's conventions applied to the columns of one episode."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.spatial.transform import Rotation as ScipyRotation

from bridgeact_jax.datasets.card_format import (
    Card,
    Clock,
    Cloud,
    Gripper,
    Position,
    Rotation,
    Width,
)
from bridgeact_jax.datasets.episode import (
    Episode,
    RejectedEpisode,
    align_hemispheres,
    check_episode,
)

UNIT_TOLERANCE = 0.02
LAST_LINE_TOLERANCE = 1e-4
NO_NUMBERS = ("instruction", "cloud")

Columns = Mapping[str, np.ndarray | list[bytes]]


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
    numeric = [table for table in card.columns() if table not in NO_NUMBERS]
    steps = len(columns[keys["position"]])
    if any(len(columns[keys[table]]) != steps for table in {*numeric, "cloud"} & set(keys)):
        raise RejectedEpisode("columns differ in length")
    if steps < 2:
        raise RejectedEpisode("fewer than 2 steps")
    parts = {table: raw_numbers(card, keys, columns, table) for table in numeric}
    for table in ("position", "rotation", "gripper"):
        if table in parts and not np.isfinite(parts[table]).all():
            raise RejectedEpisode(f"{table} is not finite")
    episode = Episode(
        time=_time(card.clock, parts.get("clock"), steps),
        position=_position(card.position, parts["position"]),
        rotation=(
            _rotation(card.rotation, parts["rotation"])
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


def raw_numbers(
    card: Card, keys: Mapping[str, str], columns: Columns, table: str
) -> np.ndarray:
    """(T, n) float64 numbers of a table of `Card.columns`, as its convention takes them.

    They are those of its slice, denormalised where the card names bounds.
    """
    tables = card.columns()

    def numbers(name: str) -> np.ndarray:
        values = np.asarray(columns[keys[name]])
        return values.reshape(len(values), -1)[:, tables[name].slice].astype(np.float64)

    values = numbers(table)
    if f"{table}_low" in tables:
        low, high = numbers(f"{table}_low"), numbers(f"{table}_high")
        values = low + values * (high - low)
    return values


def to_quaternion(rotation: Rotation, values: np.ndarray) -> np.ndarray:
    """(T, 4) float64 wxyz unit quaternions of (T, n) numbers in the card's convention.

    Raises RejectedEpisode for a quaternion or matrix that is no rotation.
    """
    if rotation.convention == "quaternion":
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        if (np.abs(length - 1.0) > UNIT_TOLERANCE).any():
            raise RejectedEpisode("quaternion is not of unit length")
        result = (values if rotation.order == "wxyz" else np.roll(values, 1, axis=-1)) / length
    else:
        result = _turns(rotation, values).as_quat(scalar_first=True)
    if rotation.turned is None:
        return result
    turned = ScipyRotation.from_quat(rotation.turned, scalar_first=True)
    recorded = ScipyRotation.from_quat(result, scalar_first=True)
    return (turned.inv() * recorded).as_quat(scalar_first=True)


def _turns(rotation: Rotation, values: np.ndarray) -> ScipyRotation:
    is_degrees = rotation.unit == "deg"
    if rotation.convention == "euler":
        axes = rotation.axes.upper() if rotation.order == "intrinsic" else rotation.axes
        return ScipyRotation.from_euler(axes, values * rotation.scale, degrees=is_degrees)
    if rotation.convention == "axis_angle":
        return ScipyRotation.from_rotvec(values * rotation.scale, degrees=is_degrees)
    matrix = to_matrix(rotation.order, values)[:, :3, :3]
    defect = np.abs(matrix @ np.swapaxes(matrix, -1, -2) - np.eye(3)).max(axis=(-1, -2))
    if (defect > UNIT_TOLERANCE).any() or (np.linalg.det(matrix) < 0).any():
        raise RejectedEpisode("matrix is no rotation")
    return ScipyRotation.from_matrix(matrix)


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
