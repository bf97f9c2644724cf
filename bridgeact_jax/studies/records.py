"""Rows of a study's table: one for each cell and task, read and written as CSV, pooled, compared.

A row holds every setting, the seed, `task`, `horizon`, `successes`, `episodes`, the Wilson interval
`low` to `high`, `wrong_object` and `invalid` episodes, where a model thought its points added up
and its `unparsable` texts, and what else was measured. `size` is `full` or `quick`; the figures of
a quick run mean nothing.
"""

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.statistics import POINTS, wilson
from bridgeact_jax.files import write_text

VERDICTS = HOLDS, FAILS, UNRESOLVED, NOT_RUN = (
    "holds", "does not hold", "not resolved", "not run"
)  # fmt: skip
Value = float | int | bool | str | None
Row = dict[str, Value]
THOUGHT = (*POINTS, "unparsable")
COUNTED = ("task", "horizon", "successes", "episodes", "low", "high", "wrong_object", "invalid")


class Rate(NamedTuple):
    """So many of so many episodes, or points of which each gives `out_of` at most.

    With the share and its 95 % Wilson interval.
    """

    count: int
    episodes: int
    out_of: int = 1

    @property
    def share(self) -> float:
        """0 to 1; NaN without episodes."""
        return self.count / (self.episodes * self.out_of) if self.episodes else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return wilson(self.count / self.out_of, self.episodes)

    def __str__(self) -> str:
        if not self.episodes:
            return "–"
        low, high = self.interval
        if self.out_of == 1:
            return f"{100 * self.share:.0f} % ({100 * low:.0f}-{100 * high:.0f})"
        mean, low, high = (self.out_of * part for part in (self.share, low, high))
        return f"{mean:.2f} of {self.out_of} ({low:.2f}-{high:.2f})"


def write_rows(path: str | os.PathLike, rows: Sequence[Row]) -> None:
    """Write rows as CSV, atomically; a cell stays empty where a row lacks the column."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: str | os.PathLike) -> list[Row]:
    """The rows of a CSV file, numbers and truths as such, nothing as None.

    Raises UserError if it lacks a column that every study has.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    missing = [name for name in ("study", "size", "seed", *COUNTED) if rows and name not in rows[0]]
    if missing or not rows:
        what = f"has no column '{missing[0]}'" if missing else "holds no rows"
        raise UserError(f"{path}: {what}: it is not what `bridgeact experiment` writes")
    return rows


def _value(text: str) -> Value:
    if not text:
        return None
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def where(rows: Iterable[Row], **settings: Value | tuple[Value, ...]) -> list[Row]:
    """The rows that have these settings; a tuple allows any of its values."""
    allowed = {n: v if isinstance(v, tuple) else (v,) for n, v in settings.items()}
    return [row for row in rows if all(row.get(name) in v for name, v in allowed.items())]


def values(rows: Iterable[Row], column: str) -> list:
    """What stands in a column: numbers in their order, words as they come; None is left out."""
    found = dict.fromkeys(row[column] for row in rows if row.get(column) is not None)
    words = any(isinstance(value, str) for value in found)
    return list(found) if words else sorted(found)


def rate(rows: Iterable[Row], counted: str = "successes") -> Rate:
    """Successes, another count or points, of all episodes of the rows that have it."""
    rows = [row for row in rows if row.get(counted) is not None]
    sums = (sum(row[name] for row in rows) for name in (counted, "episodes"))
    return Rate(*sums, POINTS.get(counted, 1))


def mean(rows: Iterable[Row], column: str) -> float:
    """The mean of a column over trainings or cells, each once, whatever its number of tasks."""
    found = _once(rows, column)
    return sum(found) / len(found) if found else math.nan


def spread(rows: Iterable[Row], column: str) -> tuple[float, float]:
    """Least and largest of what `mean` averages."""
    found = _once(rows, column)
    return (min(found), max(found)) if found else (math.nan, math.nan)


def _once(rows: Iterable[Row], column: str) -> list[float]:
    """The column's values, one for each cell: its tasks share it."""
    cells = {}
    for row in rows:
        if row.get(column) is not None:
            key = tuple(v for name, v in row.items() if name not in (*COUNTED, *THOUGHT))
            cells[key] = row[column]
    return list(cells.values())


def difference(first: Rate, second: Rate) -> tuple[float, float, float]:
    """Share of `first` less that of `second`, with a 95 % interval.

    Newcombe (1998), method 10: from both Wilson intervals; the episodes count as independent.
    """
    (low1, high1), (low2, high2) = first.interval, second.interval
    one, two = first.share, second.share
    down = math.hypot(one - low1, high2 - two)
    up = math.hypot(high1 - one, two - low2)
    return one - two, one - two - down, one - two + up


def reaches(found: Rate, target: float) -> str:
    """Whether a share is `target` or more, one of `VERDICTS`: it fails where its interval ends
    below.
    """
    if not found.episodes or math.isnan(target):
        return NOT_RUN
    return HOLDS if found.share >= target else FAILS if found.interval[1] < target else UNRESOLVED


def larger(first: Rate, second: Rate) -> str:
    """Whether `first` is the larger share, one of `VERDICTS`, by the interval of the difference."""
    if not (first.episodes and second.episodes):
        return NOT_RUN
    _, low, high = difference(first, second)
    return HOLDS if low > 0 else FAILS if high < 0 else UNRESOLVED
