"""A study's panels as one picture."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bridgeact_jax.evaluation.figures import words
from bridgeact_jax.studies.curves import COUNTS, curves
from bridgeact_jax.studies.records import Row, values
from bridgeact_jax.studies.study import Panel, Study

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*"
LONG = 14  # letters of a name along an axis; where one is longer, each word has its line
COLUMNS, WIDTH, HEIGHT, DPI = 3, 4.2, 3.6, 110  # panels in a row, inches of one, dots per inch
APART = 0.006  # of the axis, by which neighbouring curves are moved so that whiskers can be told


def draw(study: Study, rows: Sequence[Row]) -> Figure:
    """The figure of all panels of which something was run; a quick run is marked as such."""
    panels = [panel for panel in study.panels if curves(panel, rows)]
    across = min(COLUMNS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure((WIDTH * across, HEIGHT * down + 0.4), layout="constrained", dpi=DPI)
    axes = figure.subplots(down, across, squeeze=False).reshape(-1)
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, rows)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    quick = any(row["size"] == "quick" for row in rows)
    title = f"{study.name}: quick run, the figures mean nothing" if quick else study.name
    figure.suptitle(words(title), fontsize=11, color="#b00020" if quick else "black")
    return figure


def _draw_panel(axis: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    found, colours = curves(panel, rows), values(rows, panel.series)
    every = list(dict.fromkeys(point.x for points in found.values() for point in points))
    named = any(isinstance(x, str) for x in every)
    places = {x: float(i) for i, x in enumerate(every)} if named else {x: x for x in every}
    extent = max(places.values()) - min(places.values()) or 1.0
    for index, (series, points) in enumerate(found.items()):
        number = colours.index(series)
        shift = APART * extent * (2 * index - len(found) + 1)
        x = [places[point.x] + shift for point in points]
        y = [point.value for point in points]
        below = [max(point.value - point.low, 0) for point in points]
        above = [max(point.high - point.value, 0) for point in points]
        axis.errorbar(
            x, y, (below, above), color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)], linestyle="none" if named else "-",
            markersize=5, linewidth=1.4, elinewidth=0.9, capsize=2, label=name_of(series),
        )  # fmt: skip
    if panel.paper:
        paper = {
            places.get(x, x): share
            for x, share in panel.paper.items()
            if x in places or not named
        }
        axis.plot(
            list(paper), list(paper.values()), "x", color="0.35", markersize=8,
            markeredgewidth=2, label="the paper's, on its tasks",
        )  # fmt: skip
    if panel.value in COUNTS:
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axis.set_ylim(bottom=0)
    names = [words(str(x)) for x in places] if named else []
    long = max(map(len, names), default=0) > LONG
    if named:
        names = [name.replace(" ", "\n") for name in names] if long else names
        axis.set_xticks(list(places.values()), names)
        axis.margins(x=0.2)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("" if long else panel.label, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    if len(found) > 1 or panel.paper:
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.22 if long else -0.16), ncols=2,
            frameon=False, fontsize=8,
        )  # fmt: skip


def name_of(series: object) -> str:
    """A value of a column as a word."""
    if isinstance(series, str):
        return words(series)
    return f"{series:,}" if isinstance(series, int) else f"{series:g}"
