"""Dataset cards: where the end-effector motion lies in an RLDS dataset and by which conventions.

A card is a TOML file, data/cards/<name>.toml; data/README.md explains its tables. One interpreter
(`interpret.py`) reads every dataset through its card, so that a new dataset needs no code.
"""

import hashlib
import os
import pathlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridgeact_jax.datasets.resources import data_directory
from bridgeact_jax.errors import UsageError, UserError, nearest

CLAIMS = ("documented", "inferred", "assumed")
EULER_AXES = "a word of 1 to 3 letters x, y, z, no letter twice in a row"
EULER_ORDERS = ("extrinsic", "intrinsic")
ANGLE_UNITS = ("rad", "deg")
QUATERNION_ORDERS = ("wxyz", "xyzw")
MATRIX_ORDERS = ("row", "column")


@dataclass(frozen=True)
class Column:
    """Numbers of one column: `key` relative to a step; `slice` of its flattened values."""

    key: str
    slice: slice
    claim: str
    note: str


@dataclass(frozen=True)
class Position(Column):
    """x, y, z in the base frame, in units of `scale` metres."""

    scale: float


@dataclass(frozen=True)
class Rotation(Column):
    """Orientation of the tool in the base frame.

    convention and its `order`: "quaternion" (wxyz or xyzw), "euler" (extrinsic or intrinsic, about
    `axes` in that order, in `unit`), "axis_angle" (rotation vector, in `unit`), "matrix" (row- or
    column-major: 9 numbers of a rotation, or 16 of a homogeneous transform).
    """

    convention: str
    order: str
    axes: str
    unit: str


@dataclass(frozen=True)
class Gripper(Column):
    """One number, linear from `closed` to `open`.

    source "command": what was commanded. "width": the measured opening, binarised with hysteresis:
    the state becomes open above `thresholds[1]` of the range and closed below `thresholds[0]`.
    """

    source: str
    closed: float
    open: float
    thresholds: tuple[float, float]


@dataclass(frozen=True)
class Width(Column):
    """One number, linear from `closed` to `open`."""

    closed: float
    open: float


@dataclass(frozen=True)
class Clock:
    """Steps at `hz`, or at the times of column `key`, in units of `scale` seconds."""

    hz: float | None
    key: str | None
    scale: float
    claim: str
    note: str


@dataclass(frozen=True)
class Card:
    """A dataset's card. Absent tables are None: no such column, or not known."""

    name: str
    title: str
    dataset_names: tuple[str, ...]
    robot: str
    licence: str
    homepage: str
    citation: str
    position: Position
    rotation: Rotation
    gripper: Gripper
    gripper_width: Width | None
    clock: Clock
    instruction: Column | None
    cloud: Column | None
    base_z_up: bool
    tool_frame: str | None
    path: pathlib.Path
    sha256: str

    def columns(self) -> dict[str, Column]:
        """The tables that name a column, by table name."""
        tables = ("position", "rotation", "gripper", "gripper_width", "instruction", "cloud")
        named = {name: getattr(self, name) for name in tables if getattr(self, name) is not None}
        if self.clock.key:
            named["clock"] = Column(
                self.clock.key, slice(None), self.clock.claim, self.clock.note
            )
        return named


def card_paths() -> dict[str, pathlib.Path]:
    """{name: file} of the cards that ship with the project."""
    return {path.stem: path for path in sorted(data_directory("cards").glob("*.toml"))}


def load_card(name: str | os.PathLike) -> Card:
    """The card called `name`, or the card file `name` if it ends in .toml.

    Raises UsageError for an unknown name, UserError for a card that does not hold together.
    """
    paths = card_paths()
    if str(name).endswith(".toml"):
        path = pathlib.Path(name)
    elif str(name) in paths:
        path = paths[str(name)]
    else:
        raise UsageError(f"unknown card '{name}': {nearest(str(name), paths)}")
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise UsageError(f"cannot read the card {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"card {path} is not valid TOML: {error}") from None
    return _parse(table, path, hashlib.sha256(content).hexdigest())


def find_card(dataset_name: str) -> Card | None:
    """The shipped card that lists `dataset_name`, or None."""
    for name in card_paths():
        card = load_card(name)
        if dataset_name in (card.name, *card.dataset_names):
            return card
    return None


class _Table:
    """Takes the entries of a TOML table one by one, checking each; `finish` refuses leftovers."""

    def __init__(self, table: Mapping[str, Any], path: pathlib.Path, name: str):
        self.rest = dict(table)
        self.where = f"card {path}: " + (f"[{name}] " if name else "")
        self.known: list[str] = []

    def take(
        self, key: str, what: str, valid: Callable[[Any], bool], default: Any = ...
    ) -> Any:
        self.known.append(key)
        if key not in self.rest and default is ...:
            hint = [word for word in self.rest if word not in self.known]
            raise UserError(f"{self.where}lacks '{key}' ({what})"
                            + (f"; it has {', '.join(hint)}" if hint else ""))
        value = self.rest.pop(key, default)
        if value is not default and not valid(value):
            raise UserError(f"{self.where}'{key}' must be {what}, not {value!r}")
        return value

    def text(self, key: str, default: Any = ...) -> str:
        return self.take(key, "text", lambda value: isinstance(value, str), default)

    def word(self, key: str, words: tuple[str, ...], default: Any = ...) -> str:
        return self.take(key, "one of " + ", ".join(words), words.__contains__, default)

    def number(self, key: str, default: Any = ...) -> float:
        return float(self.take(key, "a number", _is_number, default))

    def positive(self, key: str, default: Any = ...) -> float:
        valid = lambda value: _is_number(value) and value > 0  # noqa: E731
        return float(self.take(key, "a positive number", valid, default))

    def column(self) -> dict[str, Any]:
        """The entries every column has."""
        what = "[start, stop] or [start, stop, step] of integers"
        numbers = self.take("slice", what, _is_slice, None)
        return {"key": self.text("key"), "slice": slice(*numbers) if numbers else slice(None)} | (
            self.claim()
        )

    def claim(self) -> dict[str, str]:
        return {"claim": self.word("claim", CLAIMS), "note": self.text("note", "")}

    def ends(self) -> dict[str, float]:
        closed, opened = self.number("closed"), self.number("open")
        if closed == opened:
            raise UserError(f"{self.where}'closed' and 'open' must differ, both are {opened}")
        return {"closed": closed, "open": opened}

    def finish(self) -> None:
        if self.rest:
            word = next(iter(self.rest))
            raise UserError(f"{self.where}has an unknown entry '{word}': "
                            f"{nearest(word, self.known)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_slice(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(isinstance(number, int) and not isinstance(number, bool) for number in value)
        and (len(value) == 2 or value[2] != 0)
    )


def _is_axes(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= 3
        and set(value) <= set("xyz")
        and all(a != b for a, b in zip(value, value[1:], strict=False))
    )


def _parse(content: Mapping[str, Any], path: pathlib.Path, sha256: str) -> Card:
    card = _Table(content, path, "")

    def table(name: str, parse: Callable[[_Table], Any], default: Any = ...) -> Any:
        entries = card.take(name, "a table", lambda value: isinstance(value, dict), default)
        if entries is None:
            return None
        inner = _Table(entries, path, name)
        value = parse(inner)
        inner.finish()
        return value

    def plain(inner: _Table) -> Column:
        return Column(**inner.column())

    names = card.take(
        "dataset_names",
        "a list of names",
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    )
    parsed = Card(
        **{key: card.text(key) for key in ("name", "title", "robot", "licence")},
        **{key: card.text(key).strip() for key in ("homepage", "citation")},
        dataset_names=tuple(names),
        position=table("position", _position),
        rotation=table("rotation", _rotation),
        gripper=table("gripper", _gripper),
        gripper_width=table("gripper_width", _width, None),
        clock=table("clock", _clock),
        instruction=table("instruction", plain, None),
        cloud=table("cloud", plain, None),
        base_z_up=table("base", _base),
        tool_frame=table("tool", _tool, None),
        path=path,
        sha256=sha256,
    )
    card.finish()
    return parsed


def _position(table: _Table) -> Position:
    return Position(**table.column(), scale=table.positive("scale", 1.0))


def _rotation(table: _Table) -> Rotation:
    convention = table.word("convention", ("quaternion", "euler", "axis_angle", "matrix"))
    order = axes = ""
    unit = "rad"
    if convention == "quaternion":
        order = table.word("order", QUATERNION_ORDERS)
    elif convention == "matrix":
        order = table.word("order", MATRIX_ORDERS)
    elif convention == "euler":
        order = table.word("order", EULER_ORDERS)
        axes = table.take("axes", EULER_AXES, _is_axes)
    if convention in ("euler", "axis_angle"):
        unit = table.word("unit", ANGLE_UNITS, "rad")
    return Rotation(**table.column(), convention=convention, order=order, axes=axes, unit=unit)


def _gripper(table: _Table) -> Gripper:
    source = table.word("source", ("command", "width"))
    thresholds = (0.5, 0.5)
    if source == "width":
        thresholds = tuple(
            table.take(
                "thresholds",
                "[low, high] within 0 to 1",
                lambda value: isinstance(value, list)
                and len(value) == 2
                and all(map(_is_number, value))
                and 0 <= value[0] <= value[1] <= 1,
                [0.4, 0.6],
            )
        )
    return Gripper(**table.column(), **table.ends(), source=source, thresholds=thresholds)


def _width(table: _Table) -> Width:
    return Width(**table.column(), **table.ends())


def _clock(table: _Table) -> Clock:
    if "key" in table.rest:
        hz, key, scale = None, table.text("key"), table.positive("scale", 1.0)
    else:
        hz, key, scale = table.positive("hz"), None, 1.0
    return Clock(hz=hz, key=key, scale=scale, **table.claim())


def _base(table: _Table) -> bool:
    table.claim()
    return table.take("z_up", "true or false", lambda value: isinstance(value, bool))


def _tool(table: _Table) -> str:
    table.claim()
    return table.text("frame")
