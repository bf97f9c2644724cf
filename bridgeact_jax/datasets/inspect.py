"""`bridgeact inspect`: what a trajectory store holds, as a table and pictures."""

import os
import pathlib
from typing import Any

import numpy as np
from absl import flags

from bridgeact_jax.datasets.directories import new_directory
from bridgeact_jax.datasets.store import TrajectoryStore, open_store

REPORT = "inspection.txt"
MAX_PATHS = 200
SUMMARISED = ("position", "rotation", "gripper", "gripper_width")


def describe_store(store: TrajectoryStore) -> dict[str, Any]:
    """Figures of a store, over all rows.

    Returns {"steps": (E,) per episode, "seconds": (E,), "hz": (E,), "keyframes": (E,),
    "speed": (N - E,) m/s between successive rows, "repeated": share of rows whose pose equals the
    one before, "open": share of rows with an open command, "changes": (E,) gripper changes,
    "nan": {column: rows that are not finite}}.
    """
    columns = store.columns
    offsets = np.asarray(columns["episode_offsets"])
    time, position = np.asarray(columns["time"]), np.asarray(columns["position"])
    episode = np.repeat(np.arange(store.num_episodes), np.diff(offsets))
    within = np.diff(episode) == 0
    interval = np.diff(time)[within]
    travel = np.linalg.norm(np.diff(position, axis=0), axis=-1)[within]
    turned = (np.diff(columns["rotation"], axis=0) != 0).any(axis=-1)[within]
    seconds = time[offsets[1:] - 1]
    steps = np.diff(offsets)
    gripper_open = np.asarray(columns["gripper"]) > 0.5
    changed = (np.diff(gripper_open) & within).astype(np.int64)
    return {
        "steps": steps,
        "seconds": seconds,
        "hz": (steps - 1) / seconds,
        "keyframes": np.diff(columns["keyframe_offsets"]),
        "speed": travel / interval,
        "repeated": float(np.mean((travel == 0) & ~turned)),
        "open": float(gripper_open.mean()),
        "changes": np.bincount(episode[1:], changed, store.num_episodes).astype(np.int64),
        "nan": {
            name: int((~np.isfinite(column)).reshape(len(column), -1).any(axis=1).sum())
            for name, column in columns.items()
            if column.dtype.kind == "f" and name != "cloud"
        },
    }


def inspection(store: TrajectoryStore) -> str:
    """The table `bridgeact inspect` prints."""
    manifest, figures = store.manifest, describe_store(store)
    source = manifest["source"]
    clouds = ", with clouds" if "cloud" in store.columns else ""
    lines = [
        f"{manifest['episodes']:,} episodes, {manifest['steps']:,} steps{clouds}; "
        f"{source['dataset']} {source['version']} ({source['split']}), card {manifest['card']}",
        "",
        f"{'':14}{'min':>10}{'1 %':>10}{'mean':>10}{'99 %':>10}{'max':>10}{'std':>10}"
        f"{'NaN rows':>10}",
    ]
    for name in SUMMARISED:
        labels = {"position": "xyz", "rotation": "wxyz"}.get(name, "")
        for component, label in enumerate(labels or [""]):
            cells = [
                _component(manifest["stats"][name][figure], component)
                for figure in ("min", "q01", "mean", "q99", "max", "std")
            ]
            title = f"{name} {label}".strip()
            lines.append(f"{title:14}" + "".join(cells) + f"{figures['nan'][name]:>10,}")
    lines.append("")
    for title, values, unit in (
        ("steps per episode", figures["steps"], ""),
        ("episode length", figures["seconds"], " s"),
        ("rate", figures["hz"], " Hz"),
        ("speed", figures["speed"], " m/s"),
        ("keyframes", figures["keyframes"], " per episode"),
        ("gripper changes", figures["changes"], " per episode"),
    ):
        low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
        lines.append(f"{title:18} {low:.4g} .. {high:.4g}, median {middle:.4g}{unit}")
    lines += [
        f"{'gripper command':18} open in {figures['open']:.0%} of steps",
        f"{'repeated frames':18} {figures['repeated']:.1%} of steps",
        f"{'rejected':18} {len(manifest['rejected_episodes']):,}",
    ]
    lines += [f"  {count:,}: {reason}" for reason, count in manifest["rejected"].items()]
    return "\n".join(lines)


def write_inspection(
    store: TrajectoryStore, out: str | os.PathLike, *, overwrite: bool = False
) -> None:
    """Write the table and pictures into the new directory `out`."""
    with new_directory(out, marker=REPORT, overwrite=overwrite) as directory:
        (directory / REPORT).write_text(inspection(store) + "\n", encoding="utf-8")
        _draw(store, directory)


def _component(value: Any, component: int) -> str:
    if isinstance(value, list):
        value = value[component]
    return f"{'-':>10}" if value is None else f"{value:>10.3f}"


def _draw(store: TrajectoryStore, directory: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    shown = np.unique(np.linspace(0, store.num_episodes - 1, MAX_PATHS).astype(int))
    for number in shown:
        path = store.episode(number).position
        key = path[store.keyframes(number)]
        for axis, (across, up) in zip(axes, ((0, 1), (0, 2)), strict=True):
            axis.plot(path[:, across], path[:, up], linewidth=0.7, alpha=0.5)
            axis.plot(key[:, across], key[:, up], "k.", markersize=2)
    for axis, (across, up) in zip(axes, ("xy", "xz"), strict=True):
        axis.set(xlabel=f"{across} (m)", ylabel=f"{up} (m)", aspect="equal")
    figure.suptitle(f"Paths and keyframes of {len(shown)} of {store.num_episodes} episodes")
    figure.savefig(directory / "paths.png", dpi=120)

    figures = describe_store(store)
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axis, (title, values) in zip(
        figure.subplots(2, 3).flat,
        (
            ("steps per episode", figures["steps"]),
            ("rate (Hz)", figures["hz"]),
            ("speed (m/s)", figures["speed"]),
            ("keyframes per episode", figures["keyframes"]),
            ("gripper command", np.asarray(store.columns["gripper"])),
            ("gripper width", np.asarray(store.columns["gripper_width"])),
        ),
        strict=True,
    ):
        finite = values[np.isfinite(values)]
        axis.hist(finite, bins=30)
        axis.set_title(title if len(finite) else f"{title}: not recorded")
    figure.savefig(directory / "histograms.png", dpi=120)

    figure = Figure(figsize=(11, 8), layout="constrained")
    few = np.unique(np.linspace(0, store.num_episodes - 1, 4).astype(int))
    for axis, number in zip(figure.subplots(4, 1).flat, few, strict=False):
        episode = store.episode(number)
        for component, label in enumerate("xyz"):
            axis.plot(episode.time, episode.position[:, component], label=f"{label} (m)")
        axis.plot(episode.time, episode.gripper, "k", drawstyle="steps-post", label="gripper")
        axis.plot(episode.time, episode.gripper_width, "k:", label="width")
        for row in store.keyframes(number):
            axis.axvline(episode.time[row], color="0.8", zorder=0)
        axis.set_title(f"episode {episode.index}: {episode.instruction}"[:100], fontsize=9)
    figure.axes[0].legend(fontsize=8, ncols=5)
    figure.axes[-1].set_xlabel("time (s)")
    figure.savefig(directory / "episodes.png", dpi=120)


def define_flags() -> None:
    flags.DEFINE_string("store", None, "trajectory store", required=True)
    flags.DEFINE_string("out", None, "new directory for the table and pictures")
    flags.DEFINE_boolean("overwrite", False, "replace an earlier inspection in --out")


def main(argv: list[str]) -> None:
    options = flags.FLAGS
    store = open_store(options.store)
    store.verify()
    print(inspection(store))
    if options.out:
        write_inspection(store, options.out, overwrite=options.overwrite)
        print(f"\npictures in {options.out}")
