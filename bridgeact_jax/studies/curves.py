"""From rows to a panel's curves: what is drawn, and what stands in tables."""

from collections.abc import Sequence
from typing import NamedTuple

from bridgeact_jax.evaluation.statistics import POINTS
from bridgeact_jax.studies.records import Row, Value, mean, rate, spread, values, where
from bridgeact_jax.studies.study import Panel

COUNTS = ("successes", "wrong_object", "invalid", *POINTS)  # of episodes, and points


class Point(NamedTuple):
    """`value` at `x`, with its interval, or the least and largest of several; `text` for a table.

    Counts are shares of the episodes, 0 to 1.
    """

    x: Value
    value: float
    low: float
    high: float
    text: str


def curves(panel: Panel, rows: Sequence[Row]) -> dict[Value, list[Point]]:
    """{series: points in the order of x}, in all panels in one order; empty if nothing was run."""
    shown = where(rows, **panel.only)
    found = {}
    for series in values(rows, panel.series):
        own = where(shown, **{panel.series: series})
        points = [_point(panel, x, where(own, **{panel.x: x})) for x in values(own, panel.x)]
        found[series] = [point for point in points if point is not None]
    return {series: points for series, points in found.items() if points}


def _point(panel: Panel, x: Value, rows: Sequence[Row]) -> Point | None:
    if not values(rows, panel.value):
        return None
    if panel.value not in COUNTS:
        value, (low, high) = mean(rows, panel.value), spread(rows, panel.value)
        text = f"{value:.3g}" if low == high else f"{value:.3g} ({low:.3g}-{high:.3g})"
        return Point(x, value, low, high, text)
    found = rate(rows, panel.value)
    text, seeds = str(found), values(rows, "seed")
    if len(seeds) > 1:
        shares = [100 * rate(where(rows, seed=seed), panel.value).share for seed in seeds]
        text += f"; seeds {min(shares):.0f}-{max(shares):.0f}"
    return Point(x, found.share, *found.interval, text)
