"""From a card's TOML tables to a `Card`; every entry is checked, none is ignored."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bridgeact_jax.datasets.card_format import (
    Camera,
    Card,
    Clock,
    Cloud,
    Column,
    Gripper,
    Limits,
    Position,
    Rotation,
    RotationAction,
    Width,
)
from bridgeact_jax.errors import UserError, nearest

CLAIMS = ("documented", "inferred", "assumed")
EULER_AXES = "a word of 1 to 3 letters x, y, z, no letter twice in a row"
EULER_ORDERS = ("extrinsic", "intrinsic")
ANGLE_UNITS = ("rad", "deg")
QUATERNION_ORDERS = ("wxyz", "xyzw")
MATRIX_ORDERS = ("row", "column", "detect")
ROTATIONS = ("quaternion", "euler", "axis_angle", "matrix")
FRAMES = ("base", "tool", "unknown")
CAMERA_AXES = ("opencv", "opengl")
POSES = ("T_base_camera", "T_camera_base")
THRESHOLDS = {"width": [0.4, 0.6], "change": [0.25, 0.75]}
LARGEST_NUMBER = 1e12
RIGID_TOLERANCE = 0.01


def parse_card(content: Mapping[str, Any], path: pathlib.Path, sha256: str) -> Card:
    """The card whose TOML file `path` holds `content`.

    Raises UserError naming file, table and entry for an entry that is missing, unknown or wrong.
    """
    card = _Table(content, path, "")
    names = card.take("dataset_names", "a list of names", _is_texts)
    facts = {
        "name": card.filled("name"),
        **{key: card.text(key) for key in ("title", "robot", "licence")},
        **{key: card.text(key).strip() for key in ("homepage", "citation")},
        "dataset_names": tuple(names),
        "path": path,
        "sha256": sha256,
    }
    if "refused" in card.rest:
        facts["refused"] = " ".join(card.filled("refused").split())
        if card.rest:
            raise UserError(f"{card.where}is refused, so it takes no '{_plain(card.rest)}'")
        return Card(**facts)
    limits = card.table("limits", _limits, None)
    parsed = Card(
        **facts,
        position=card.table("position", _position),
        rotation=card.table("rotation", _rotation, None),
        gripper=card.table("gripper", _gripper, None),
        gripper_width=card.table("gripper_width", _width, None),
        clock=card.table("clock", _clock),
        instruction=card.table("instruction", lambda table: Column(**table.column()), None),
        cloud=card.table("cloud", _cloud, None),
        cameras=_cameras(card),
        rotation_action=card.table("rotation_action", _rotation_action, None),
        limits=limits or Limits(),
        base_z_up=card.table("base", _base),
        tool_frame=card.table("tool", _tool, None),
    )
    card.finish()
    return parsed


class _Table:
    """Takes the entries of a TOML table one by one, checking each; `finish` refuses leftovers."""

    def __init__(self, table: Mapping[str, Any], path: pathlib.Path, name: str):
        self.rest = dict(table)
        self.path = path
        self.where = f"card {path}: " + (f"[{name}] " if name else "")
        self.known: list[str] = []

    def take(
        self, key: str, what: str, valid: Callable[[Any], bool], default: Any = ...
    ) -> Any:
        self.known.append(key)
        if key not in self.rest and default is ...:
            hint = [word for word in self.rest if word not in self.known and word.isidentifier()]
            raise UserError(f"{self.where}lacks '{key}' ({what})"
                            + (f"; it has {', '.join(hint)}" if hint else ""))
        value = self.rest.pop(key, default)
        if value is not default and not valid(value):
            raise UserError(f"{self.where}'{key}' must be {what}, not {value!r}")
        return value

    def table(self, name: str, parse: Callable[["_Table"], Any], default: Any = ...) -> Any:
        entries = self.take(name, "a table", lambda value: isinstance(value, dict), default)
        return default if entries is default else self.inner(entries, name, parse)

    def inner(
        self, entries: Mapping[str, Any], name: str, parse: Callable[["_Table"], Any]
    ) -> Any:
        inner = _Table(entries, self.path, name)
        value = parse(inner)
        inner.finish()
        return value

    def text(self, key: str, default: Any = ...) -> Any:
        return self.take(key, "text", lambda value: isinstance(value, str), default)

    def filled(self, key: str) -> str:
        is_filled = lambda value: isinstance(value, str) and bool(value.strip())  # noqa: E731
        return self.take(key, "text that is not empty", is_filled)

    def word(self, key: str, words: tuple[str, ...], default: Any = ...) -> str:
        return self.take(key, "one of " + ", ".join(words), words.__contains__, default)

    def number(self, key: str) -> float:
        return float(self.take(key, "a number", _is_number))

    def positive(self, key: str, default: Any = ...) -> Any:
        valid = lambda value: _is_number(value) and value > 0  # noqa: E731
        value = self.take(key, "a positive number", valid, default)
        return default if value is default else float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...] | None:
        valid = lambda value: _are_numbers(value) and len(value) == count  # noqa: E731
        value = self.take(key, f"a list of {count} numbers", valid, None)
        return None if value is None else tuple(map(float, value))

    def column(self) -> dict[str, Any]:
        """The entries every column has."""
        what = "[start, stop] or [start, stop, step] of integers"
        numbers = self.take("slice", what, _is_slice, None)
        return {"key": self.text("key"), "slice": slice(*numbers) if numbers else slice(None)} | (
            self.claim()
        )

    def bounds(self) -> dict[str, str | None]:
        low, high = self.text("low_key", None), self.text("high_key", None)
        if (low is None) != (high is None):
            raise UserError(f"{self.where}'low_key' and 'high_key' belong together: give both")
        return {"low_key": low, "high_key": high}

    def claim(self, default: Any = ...) -> dict[str, str]:
        return {"claim": self.word("claim", CLAIMS, default), "note": self.text("note", "")}

    def ends(self) -> dict[str, float]:
        closed, opened = self.number("closed"), self.number("open")
        if closed == opened:
            raise UserError(f"{self.where}'closed' and 'open' must differ, both are {opened}")
        return {"closed": closed, "open": opened}

    def at_most_one(self, *keys: str) -> None:
        there = [key for key in keys if key in self.rest]
        if len(there) > 1:
            raise UserError(f"{self.where}has '{there[0]}' and '{there[1]}': keep one")

    def finish(self) -> None:
        if self.rest:
            word = _plain(self.rest)
            raise UserError(f"{self.where}has an unknown entry '{word}': "
                            f"{nearest(word, self.known)}")


def _plain(table: Mapping[str, Any]) -> str:
    return next(iter(table)).encode("unicode_escape").decode()


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    )


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_slice(value: Any) -> bool:
    return (
        _are_numbers(value)
        and len(value) in (2, 3)
        and all(isinstance(number, int) for number in value)
        and (len(value) == 2 or value[2] != 0)
    )


def _is_axes(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= 3
        and set(value) <= set("xyz")
        and all(a != b for a, b in zip(value, value[1:], strict=False))
    )


def _is_thresholds(value: Any) -> bool:
    return _are_numbers(value) and len(value) == 2 and 0 <= value[0] <= value[1] <= 1


def _position(table: _Table) -> Position:
    convention = table.word("convention", ("xyz", "matrix"), "xyz")
    is_matrix = convention == "matrix"
    return Position(
        **table.column(),
        **({} if is_matrix else table.bounds()),
        scale=table.positive("scale", 1.0),
        convention=convention,
        order=table.word("order", MATRIX_ORDERS) if is_matrix else "",
    )


def _turn(table: _Table, conventions: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a rotation in any of `conventions`."""
    convention = table.word("convention", conventions)
    entries = {"convention": convention, **table.column()}
    if convention == "quaternion":
        entries["order"] = table.word("order", QUATERNION_ORDERS)
    elif convention == "matrix":
        entries["order"] = table.word("order", MATRIX_ORDERS)
    elif convention == "euler":
        entries["order"] = table.word("order", EULER_ORDERS)
        entries["axes"] = table.take("axes", EULER_AXES, _is_axes)
    if convention in ("euler", "axis_angle"):
        entries["unit"] = table.word("unit", ANGLE_UNITS, "rad")
    return entries


def _rotation(table: _Table) -> Rotation:
    entries = _turn(table, ROTATIONS)
    bounds = {} if entries["convention"] == "matrix" else table.bounds()
    return Rotation(**entries, **bounds)


def _rotation_action(table: _Table) -> RotationAction:
    entries = _turn(table, ("euler", "axis_angle"))
    return RotationAction(**entries, frame=table.word("frame", FRAMES))


def _gripper(table: _Table) -> Gripper:
    source = table.word("source", ("command", "change", "width"))
    thresholds = [0.5, 0.5]
    if source in THRESHOLDS:
        what = "[low, high] within 0 to 1"
        thresholds = table.take("thresholds", what, _is_thresholds, THRESHOLDS[source])
    return Gripper(
        **table.column(), **table.ends(), source=source, thresholds=tuple(map(float, thresholds))
    )


def _width(table: _Table) -> Width:
    return Width(**table.column(), **table.ends())


def _clock(table: _Table) -> Clock:
    table.at_most_one("hz", "key")
    if "key" in table.rest:
        hz, key, scale = None, table.text("key"), table.positive("scale", 1.0)
    else:
        hz, key, scale = table.positive("hz"), None, 1.0
    return Clock(hz=hz, key=key, scale=scale, **table.claim())


def _cloud(table: _Table) -> Cloud:
    return Cloud(**table.column(), scale=table.positive("scale", 1.0))


def _cameras(card: _Table) -> tuple[Camera, ...]:
    is_tables = lambda value: (  # noqa: E731
        isinstance(value, list) and all(isinstance(entries, dict) for entries in value)
    )
    tables = card.take("cameras", "tables [[cameras]]", is_tables, [])
    cameras = tuple(
        card.inner(entries, f"cameras {number}", _camera)
        for number, entries in enumerate(tables, 1)
    )
    names = [camera.name for camera in cameras]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{card.where}two cameras are called {name!r}")
    return cameras


def _camera(table: _Table) -> Camera:
    table.at_most_one("intrinsics", "intrinsics_key")
    table.at_most_one("T_base_camera", "pose_key")
    matrix = table.numbers("T_base_camera", 16)
    if matrix is not None and not _is_rigid(matrix):
        raise UserError(f"{table.where}'T_base_camera' must be the 16 numbers of a homogeneous "
                        "transform, row by row: a rotation, a translation and 0, 0, 0, 1")
    pose_key = table.text("pose_key", None)
    return Camera(
        name=table.filled("name"),
        depth=table.text("depth"),
        depth_scale=table.positive("depth_scale", None),
        intrinsics=table.numbers("intrinsics", 4),
        intrinsics_key=table.text("intrinsics_key", None),
        T_base_camera=matrix,
        pose_key=pose_key,
        pose=None if pose_key is None else table.word("pose", POSES),
        axes=table.word("axes", CAMERA_AXES, "opencv"),
        max_depth=table.positive("max_depth", None),
        **table.claim(),
    )


def _is_rigid(numbers: tuple[float, ...]) -> bool:
    matrix = np.reshape(numbers, (4, 4))
    turn = matrix[:3, :3]
    return bool(
        np.allclose(matrix[3], [0, 0, 0, 1])
        and np.allclose(turn @ turn.T, np.eye(3), atol=RIGID_TOLERANCE)
        and np.linalg.det(turn) > 0
    )


def _limits(table: _Table) -> Limits:
    table.claim("assumed")
    default = Limits()
    return Limits(**{
        name: table.positive(name, getattr(default, name)) for name in ("reach", "speed", "turn")
    })


def _base(table: _Table) -> bool:
    table.claim()
    return table.take("z_up", "true or false", lambda value: isinstance(value, bool))


def _tool(table: _Table) -> str:
    table.claim()
    return table.text("frame")
