"""Pictures of a trajectory store, to judge a dataset by."""

import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from scipy.spatial.transform import Rotation

from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.datasets.store import TrajectoryStore

PATHS = 60  # drawn in 3D; more hide each other
PATH_POINTS = 200
ROWS = 2_000_000  # counted into a heat map or histogram
CELLS, FEWEST_CELLS = 120, 30
BINS = 40
EPISODES = 4
SHARE_OUTSIDE = 0.0005
DPI = 120
CLOSED, OPEN, BARS = "#c0392b", "#5b9bd5", "#4c78a8"
AXIS_COLOURS = dict(zip("xyz", ("#d1495b", "#2e8b57", "#30638e"), strict=True))
WIDTH = {"color": "0.3", "ls": ":", "lw": 1.2}


def draw_store(
    store: TrajectoryStore, figures: Mapping[str, Any], error_mm: np.ndarray, folder: pathlib.Path
) -> None:
    """Write paths.png, density.png, histograms.png and episodes.png into `folder`.

    Args:
      figures: of `describe_store`.
      error_mm: (S,) largest guidance error of some episodes, millimetres.
    """
    for name, figure in (
        ("paths", paths(store)),
        ("density", density(store.columns["position"])),
        ("histograms", histograms(store, figures, error_mm)),
        ("episodes", episodes(store)),
    ):
        figure.savefig(folder / f"{name}.png", dpi=DPI)


def paths(store: TrajectoryStore) -> Figure:
    """Paths in 3D, coloured by time and by the gripper's command; keyframes as dots."""
    shown = np.unique(np.linspace(0, store.num_episodes - 1, PATHS).astype(int))
    pieces, moments, opened, keys = [], [], [], []
    for number in shown:
        episode = store.episode(number)
        frames = np.unique(np.linspace(0, len(episode) - 1, PATH_POINTS).astype(int))
        path = episode.position[frames]
        pieces.append(np.stack([path[:-1], path[1:]], axis=1))
        moments.append(episode.time[frames[1:]] / episode.time[-1])
        opened.append(episode.gripper[frames[1:]] > 0.5)
        keys.append(episode.position[store.keyframes(number)])
    pieces, keys = np.concatenate(pieces), np.concatenate(keys)
    low, high = pieces.min(axis=(0, 1)), pieces.max(axis=(0, 1))
    middle, radius = (low + high) / 2, max(float((high - low).max()) / 2, 0.01)

    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(1, 2, subplot_kw={"projection": "3d"})
    by_time = _part_of("viridis", 0.0, 0.85)
    for axis, values, colours in (
        (axes[0], moments, by_time), (axes[1], opened, ListedColormap([CLOSED, OPEN]))
    ):  # fmt: skip
        lines = Line3DCollection(pieces, cmap=colours, norm=Normalize(0, 1), lw=1.0, alpha=0.85)
        lines.set_array(np.concatenate(values).astype(float))
        axis.add_collection3d(lines)
        axis.scatter(*keys.T, s=4, color="0.1", depthshade=False)
        axis.set_box_aspect((1, 1, 1), zoom=0.92)
        axis.view_init(elev=22, azim=-60)
        for name, centre in zip("xyz", middle, strict=True):
            getattr(axis, f"{name}axis").set_major_locator(MaxNLocator(4))
            span = (centre - radius, centre + radius)
            axis.set(**{f"{name}lim": span, f"{name}label": f"{name} (m)"})
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), by_time), ax=axes[0], shrink=0.5, pad=0.1)
    bar.set_ticks((0, 1), labels=("start", "end"))
    handles = [Patch(color=OPEN, label="gripper open"), Patch(color=CLOSED, label="gripper closed")]
    if not store.manifest.get("recorded", {}).get("gripper", True):
        handles = [Patch(color=OPEN, label="gripper not recorded")]
    axes[1].legend(handles=handles, loc="upper right")
    figure.suptitle(
        f"Paths of {len(shown):,} of {store.num_episodes:,} episodes; dots are keyframes"
    )
    return figure


def density(position: np.ndarray) -> Figure:
    """Where the tool is: steps per cell, from above and from the side, on a logarithmic scale."""
    rows = _thinned(position)
    low, high = np.quantile(rows, [SHARE_OUTSIDE, 1 - SHARE_OUTSIDE], axis=0)
    middle, radius = (low + high) / 2, max(float((high - low).max()) / 2, 0.01) * 1.05
    outside = float((np.abs(rows - middle) > radius).any(axis=1).mean())
    cells = int(np.clip(np.sqrt(len(rows)), FEWEST_CELLS, CELLS))
    edges = np.linspace(middle - radius, middle + radius, cells + 1)
    views = ((0, 1, "from above"), (0, 2, "from the side"))
    counts = [
        np.histogram2d(rows[:, a], rows[:, b], bins=(edges[:, a], edges[:, b]))[0].T
        for a, b, _ in views
    ]
    norm, colours = LogNorm(1, max(10, *(c.max() for c in counts))), _part_of("magma_r", 0.2, 1.0)
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (a, b, title), count in zip(axes, views, counts, strict=True):
        image = axis.pcolormesh(
            edges[:, a], edges[:, b], np.ma.masked_equal(count, 0), norm=norm, cmap=colours
        )
        axis.set(xlabel=f"{'xyz'[a]} (m)", ylabel=f"{'xyz'[b]} (m)", aspect="equal", title=title)
        axis.grid(color="0.92", zorder=0)
        axis.set_axisbelow(True)
    size = 2e3 * radius / cells
    figure.colorbar(image, ax=axes, shrink=0.8, format="%d", label=f"steps per {size:.2g} mm cell")
    note = f"; {outside:.2%} lie outside" if outside else ""
    figure.suptitle(f"Density of {len(rows):,} of {len(position):,} positions{note}")
    return figure


def histograms(
    store: TrajectoryStore, figures: Mapping[str, Any], error_mm: np.ndarray
) -> Figure:
    """Lengths, rates, speeds, keyframes, gripper and guidance error."""
    recorded = store.manifest.get("recorded", {})
    none = np.empty(0)
    turning = figures["turning"] if recorded.get("rotation") != "none" else none
    command = store.columns["gripper"] if recorded.get("gripper", True) else none
    figure = Figure(figsize=(13, 9), layout="constrained")
    panels = (
        ("steps per episode", figures["steps"], "episodes", None),
        ("rate (Hz)", figures["hz"], "episodes", None),
        ("keyframes per episode", figures["keyframes"], "episodes", None),
        ("speed (m/s)", figures["speed"], "steps", (0, None)),
        ("turning (rad/s)", turning, "steps", (0, None)),
        ("largest guidance error (mm)", error_mm, "episodes", (0, None)),
        ("gripper command (1 = open)", command, "steps", (0, 1)),
        ("gripper width (1 = open)", store.columns["gripper_width"], "steps", (0, 1)),
        ("gripper changes per episode", figures["changes"], "episodes", None),
    )
    for axis, (title, values, unit, span) in zip(figure.subplots(3, 3).flat, panels, strict=True):
        axis.set_title(title)
        _histogram(axis, values, unit, span)
    return figure


def _histogram(
    axis: Axes, values: np.ndarray, unit: str, span: tuple[float, float | None] | None
) -> None:
    """Bars over the finite values, logarithmic for steps; a word where there is nothing to draw."""
    values = _thinned(values)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0, 0)
    if not len(values) or (span is None and high - low <= 1e-3 * abs(high)):
        text = f"{(low + high) / 2:.4g} in every episode" if len(values) else "not recorded"
        axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
        return
    if values.dtype.kind == "i" and high - low < BINS:
        bins, width = np.arange(low - 0.5, high + 1), 0.8
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        if span is not None:
            low, high = span[0], max(high, 1e-3) if span[1] is None else span[1]
        number = int(np.clip(2 * np.sqrt(len(values)), 8, BINS))
        bins, width = np.linspace(low, high, number + 1), 0.95
    axis.hist(values, bins=bins, rwidth=width, color=BARS)
    if unit == "steps":
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.5)
    else:
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_ylabel(unit)
    axis.spines[["top", "right"]].set_visible(False)


def episodes(store: TrajectoryStore) -> Figure:
    """A few episodes over time: position, turn since the start if recorded, gripper, keyframes."""
    numbers = np.unique(np.linspace(0, store.num_episodes - 1, EPISODES).astype(int))
    has_rotation = store.manifest.get("recorded", {}).get("rotation") != "none"
    figure = Figure(figsize=(13, 2.5 * len(numbers) + 0.8), layout="constrained")
    axes = figure.subplots(len(numbers), 1 + has_rotation, squeeze=False)
    for row, number in zip(axes, numbers, strict=True):
        episode = store.episode(number)
        for axis in row:
            _gripper_and_keyframes(axis, episode, store.keyframes(number))
        turn = Rotation.from_quat(episode.rotation, scalar_first=True)
        turn = np.rad2deg((turn * turn[0].inv()).as_rotvec())
        columns = ((episode.position, "position (m)"), (turn, "turn (degrees)"))
        for axis, (values, title) in zip(row, columns, strict=False):
            axis.set_ylabel(title)
            for (label, colour), line in zip(AXIS_COLOURS.items(), values.T, strict=True):
                axis.plot(episode.time, line, color=colour, label=label)
        title = textwrap.shorten(f"episode {episode.index}: {episode.instruction}", 70)
        row[0].set_title(title, fontsize=10, loc="left", parse_math=False)
        if np.isfinite(episode.gripper_width).any():
            row[0].plot(
                episode.time, 0.05 + 0.9 * episode.gripper_width, **WIDTH,
                transform=row[0].get_xaxis_transform(),
            )  # fmt: skip
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    lines, labels = axes[0, 0].get_legend_handles_labels()
    closed = Patch(color=CLOSED, alpha=0.15)
    keyframe = Line2D([], [], color="0.6", ls="--", lw=0.8)
    figure.legend(
        [*lines, Line2D([], [], **WIDTH), closed, keyframe],
        [*labels, "gripper width (top: open)", "gripper closed", "keyframe"],
        loc="outside upper right", ncols=6, frameon=False,
    )  # fmt: skip
    return figure


def _gripper_and_keyframes(axis: Axes, episode: Episode, keyframes: np.ndarray) -> None:
    closed = np.concatenate([[False], episode.gripper <= 0.5, [False]])
    for start, end in np.flatnonzero(np.diff(closed)).reshape(-1, 2):
        until = episode.time[min(end, len(episode) - 1)]
        axis.axvspan(episode.time[start], until, color=CLOSED, alpha=0.15, lw=0)
    for row in keyframes:
        axis.axvline(episode.time[row], color="0.6", ls="--", lw=0.8, zorder=0)
    axis.set_xlim(0, episode.time[-1])


def _thinned(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[:: max(1, -(-len(values) // ROWS))])


def _part_of(name: str, low: float, high: float) -> ListedColormap:
    """The colours of a map without those too pale to see on white."""
    return ListedColormap(matplotlib.colormaps[name](np.linspace(low, high, 256)))
