"""The entries of a card's TOML tables, taken one by one and checked; none is ignored."""

import pathlib
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from bridgeact_jax.errors import UserError, nearest

CLAIMS = ("documented", "inferred", "assumed")
LARGEST_NUMBER = 1e12


class Table:
    """A TOML table of the file `path`, a `kind`; `name` is its place there, "" for the top level.

    Each method takes an entry out of `rest`, or returns `default`; it raises a UserError that
    names file, table and entry if the entry is missing without a default, or wrong.
    """

    def __init__(
        self, entries: Mapping[str, Any], path: pathlib.Path, name: str = "", kind: str = "card"
    ):
        self.rest = dict(entries)
        self.path, self.kind = path, kind
        self.where = f"{kind} {path}: " + (f"[{name}] " if name else "")
        self.known: list[str] = []

    def take(
        self, key: str, what: str, valid: Callable[[Any], bool], default: Any = ...
    ) -> Any:
        """The entry `key`, which is `what` if `valid`."""
        self.known.append(key)
        if key not in self.rest:
            if default is ...:
                hint = [word for word in self.rest if word not in self.known]
                hint = ", ".join(word for word in hint if word.isidentifier())
                raise UserError(f"{self.where}lacks '{key}' ({what})"
                                + (f"; it has {hint}" if hint else ""))
            return default
        value = self.rest.pop(key)
        if not valid(value):
            raise UserError(f"{self.where}'{key}' must be {what}, not {_shown(value)}")
        return value

    def text(self, key: str, default: Any = ...) -> Any:
        return self.take(key, "text", lambda value: isinstance(value, str), default)

    def filled(self, key: str) -> str:
        valid = lambda value: isinstance(value, str) and bool(value.strip())  # noqa: E731
        return self.take(key, "text that is not empty", valid)

    def word(self, key: str, words: tuple[str, ...], default: Any = ...) -> str:
        return self.take(key, "one of " + ", ".join(words), words.__contains__, default)

    def texts(self, key: str) -> tuple[str, ...]:
        valid = lambda value: _is_list(value, lambda text: isinstance(text, str))  # noqa: E731
        return tuple(self.take(key, "a list of texts", valid))

    def number(self, key: str) -> float:
        return float(self.take(key, "a number", is_number))

    def positive(self, key: str, default: Any = ...) -> Any:
        valid = lambda value: is_number(value) and value > 0  # noqa: E731
        value = self.take(key, "a positive number", valid, default)
        return value if value is None else float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...] | None:
        valid = lambda value: _is_list(value, is_number) and len(value) == count  # noqa: E731
        value = self.take(key, f"a list of {count} numbers", valid, None)
        return value if value is None else tuple(map(float, value))

    def table(self, name: str, parse: Callable[["Table"], Any], default: Any = ...) -> Any:
        """What `parse` makes of the table `name`."""
        entries = self.take(name, "a table", lambda value: isinstance(value, dict), default)
        return self._inner(entries, name, parse) if isinstance(entries, dict) else default

    def tables(self, name: str, parse: Callable[["Table"], Any]) -> tuple[Any, ...]:
        """What `parse` makes of each table [[name]]."""
        valid = lambda value: _is_list(value, lambda one: isinstance(one, dict))  # noqa: E731
        many = self.take(name, f"tables [[{name}]]", valid, [])
        return tuple(
            self._inner(entries, f"{name} {number}", parse)
            for number, entries in enumerate(many, 1)
        )

    def at_most_one(self, *keys: str) -> None:
        """Refuse two of `keys` together."""
        there = [key for key in keys if key in self.rest]
        if len(there) > 1:
            raise UserError(f"{self.where}has '{there[0]}' and '{there[1]}': keep one")

    def finish(self) -> None:
        """Refuse what nobody took."""
        if self.rest:
            word = self.first_left()
            raise UserError(f"{self.where}has an unknown entry '{word}': "
                            f"{nearest(word, self.known)}")

    def first_left(self) -> str:
        return next(iter(self.rest)).encode("unicode_escape").decode()

    def column(self) -> dict[str, Any]:
        """The entries every column has."""
        what = "[start, stop] or [start, stop, step] of integers"
        numbers = self.take("slice", what, _is_slice, None)
        place = {"key": self.text("key"), "slice": slice(*numbers) if numbers else slice(None)}
        return place | self.claim()

    def claim(self, default: Any = ...) -> dict[str, str]:
        return {"claim": self.word("claim", CLAIMS, default), "note": self.text("note", "")}

    def _inner(
        self, entries: Mapping[str, Any], name: str, parse: Callable[["Table"], Any]
    ) -> Any:
        inner = Table(entries, self.path, name, self.kind)
        value = parse(inner)
        inner.finish()
        return value


def is_number(value: Any) -> bool:
    """A number of TOML that a float holds: finite, no boolean."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    )


def _is_list(value: Any, valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(valid, value))


def _is_slice(value: Any) -> bool:
    return (
        _is_list(value, lambda number: is_number(number) and isinstance(number, int))
        and len(value) in (2, 3)
        and (len(value) == 2 or value[2] != 0)
    )


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # thousands of digits, from a hexadecimal
        return "a number out of range"
