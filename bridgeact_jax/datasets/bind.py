"""A card's columns found in a dataset, and checked against what its features declare."""

import numpy as np

from bridgeact_jax.datasets.card_format import Camera, Card
from bridgeact_jax.datasets.cards import require_convertible
from bridgeact_jax.datasets.episode import CLOUD_SHAPE
from bridgeact_jax.datasets.rlds_columns import ColumnSpec
from bridgeact_jax.datasets.rlds_reader import RldsDataset
from bridgeact_jax.errors import UserError, nearest

CAMERA_NUMBERS = {"intrinsics": 9, "pose": 16}


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
