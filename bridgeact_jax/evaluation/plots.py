"""Figures drawn as inline SVG; colours come from the page's CSS (classes s0 to s11)."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 318, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 26, 40
COLOURS = 12


class Point(NamedTuple):
    """A success rate `rate` with its interval at `x`."""

    x: float
    rate: float
    low: float
    high: float


def interval_bar(rate: float, low: float, high: float, colour: int) -> str:
    """A small horizontal bar of the rate with its interval as a whisker; all in [0, 1]."""
    return (
        f'<svg class="bar s{colour % COLOURS}" viewBox="0 0 120 14" width="120" height="14" '
        f'aria-hidden="true"><rect class="track" width="120" height="14" rx="2"/>'
        f'<rect class="fill" width="{120 * rate:.1f}" height="14" rx="2"/>'
        f'<path class="whisker" d="M{120 * low:.1f} 4v6m0-3H{120 * high:.1f}m0-3v6"/></svg>'
    )


def line_panel(
    title: str,
    axis: str,
    series: Sequence[tuple[str, int, Sequence[Point]]],
    ticks: Mapping[float, str] | None = None,
) -> str:
    """Success (0 to 100 %) against `axis`; `series` are (name, colour, points).

    `ticks` are the words for values of `axis` that do not speak for themselves.
    """
    values = sorted({point.x for _, _, points in series for point in points})
    smallest = min(0.0, values[0])
    extent = max(values[-1] - smallest, 1e-9)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(value: float, shift: int = 0) -> float:
        return LEFT + 10 + (plot_width - 20) * (value - smallest) / extent + 2 * shift

    def y_of(rate: float) -> float:
        return TOP + plot_height * (1 - rate)

    parts = [f'<text class="title" x="{LEFT}" y="14">{escape(title)}</text>']
    for percent in (0, 25, 50, 75, 100):
        y = y_of(percent / 100)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        if percent % 50 == 0:
            parts.append(
                f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                f"{percent} %</text>"
            )
    last = -math.inf
    for value in values:
        if x_of(value) - last < 24:
            continue
        last = x_of(value)
        parts.append(
            f'<text class="tick" x="{last:.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{escape(ticks[value]) if ticks else f"{value:g}"}</text>'
        )
    parts.append(
        f'<text class="tick" x="{LEFT + plot_width / 2}" y="{HEIGHT - 6}" '
        f'text-anchor="middle">{escape(axis)}</text>'
    )
    for index, (name, colour, points) in enumerate(series):
        shift = 2 * index - len(series) + 1  # neighbouring whiskers do not cover each other
        ordered = sorted(points)
        line = " ".join(f"{x_of(p.x, shift):.1f},{y_of(p.rate):.1f}" for p in ordered)
        parts.append(f'<g class="s{colour % COLOURS}"><polyline points="{line}"/>')
        for p in ordered:
            x = x_of(p.x, shift)
            parts.append(
                f'<path d="M{x:.1f} {y_of(p.low):.1f}V{y_of(p.high):.1f}"/>'
                f'<circle cx="{x:.1f}" cy="{y_of(p.rate):.1f}" r="3.5">'
                f"<title>{escape(name)}, {p.x:g}: {p.rate:.0%} "
                f"({p.low:.0%} to {p.high:.0%})</title></circle>"
            )
        parts.append("</g>")
    return _svg(WIDTH, HEIGHT, title, parts)


def dot_panel(title: str, rows: Sequence[tuple[str, int, Point]]) -> str:
    """One row per condition or task: a dot with its interval on a 0 to 100 % axis."""
    names = max((len(name) for name, _, _ in rows), default=0)
    left, width, step = min(20 + 6.6 * names, 260), 720, 22
    top = TOP if title else 6
    height = top + step * len(rows) + 24
    span = width - left - 30

    def x_of(rate: float) -> float:
        return left + span * rate

    bottom = top + step * len(rows)
    parts = [f'<text class="title" x="0" y="14">{escape(title)}</text>'] if title else []
    for percent in (0, 25, 50, 75, 100):
        x = x_of(percent / 100)
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{percent} %</text>"
        )
    for row, (name, colour, point) in enumerate(rows):
        y = top + step * (row + 0.5)
        parts.append(
            f'<text class="label" x="{left - 12:.1f}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(name)}</text>"
            f'<g class="s{colour % COLOURS}">'
            f'<path d="M{x_of(point.low):.1f} {y:.1f}H{x_of(point.high):.1f}"/>'
            f'<circle cx="{x_of(point.rate):.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{point.rate:.0%} ({point.low:.0%} to {point.high:.0%})</title></circle></g>"
        )
    return _svg(width, height, title, parts)


def stacked_panel(rows: Sequence[tuple[str, Sequence[tuple[str, int, int]], int]]) -> str:
    """One bar per row, of parts laid end to end; `rows` are (name, parts, total).

    Parts are (name, colour, count), and `total` is what the whole width stands for.
    """
    names = max((len(name) for name, _, _ in rows), default=0)
    left, width, step = min(20 + 6.6 * names, 260), 720, 22
    span = width - left - 60
    parts = []
    for row, (name, pieces, total) in enumerate(rows):
        y, x = step * row, left
        parts.append(
            f'<text class="label" x="{left - 12:.1f}" y="{y + 15:.1f}" text-anchor="end">'
            f'{escape(name)}</text><rect class="track" x="{left}" y="{y + 3}" '
            f'width="{span}" height="16" rx="2"/>'
        )
        for piece, colour, count in pieces:
            length = span * count / total if total else 0.0
            parts.append(
                f'<g class="s{colour % COLOURS}"><rect class="piece" x="{x:.1f}" y="{y + 3}" '
                f'width="{length:.1f}" height="16"><title>{escape(name)}: {count} '
                f"{escape(piece)}</title></rect></g>"
            )
            if length > 16:
                parts.append(
                    f'<text class="count" x="{x + length / 2:.1f}" y="{y + 15}" '
                    f'text-anchor="middle">{count}</text>'
                )
            x += length
        parts.append(
            f'<text class="tick" x="{width - 52}" y="{y + 15}">of {total}</text>'
        )
    return _svg(width, step * len(rows) + 4, "counts", parts)


def legend(names: Sequence[tuple[str, int]]) -> str:
    """The names of the series beside their colours."""
    entries = "".join(
        f'<span class="s{colour % COLOURS}"><i></i>{escape(name)}</span>'
        for name, colour in names
    )
    return f'<p class="legend">{entries}</p>'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
