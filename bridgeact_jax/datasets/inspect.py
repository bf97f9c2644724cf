"""`bridgeact inspect`: what a trajectory store holds, as a table and pictures."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from bridgeact_jax.datasets.directories import new_directory
from bridgeact_jax.datasets.store import TrajectoryStore, open_store

REPORT = "inspection.txt"
SUMMARISED = {"position": "xyz", "rotation": "wxyz", "gripper": "", "gripper_width": ""}
GUIDED_EPISODES = 256
GUIDED_FRAMES = 128
EPISODES_NAMED = 8


class GuidanceError(NamedTuple):
    """How far the frames of some episodes lie from the curve through their keyframes.

    episodes: (S,) numbers in the store; frames of each are evenly spaced, at most `GUIDED_FRAMES`.
    mean, worst: (S,) metres over the frames of each.
    """

    episodes: np.ndarray
    mean: np.ndarray
    worst: np.ndarray


def describe_store(store: TrajectoryStore) -> dict[str, Any]:
    """Figures of a store, over all rows.

    Returns {"steps": (E,) per episode, "seconds": (E,), "hz": (E,), "keyframes": (E,),
    "speed": (N - E,) m/s and "turning": (N - E,) rad/s between successive rows, "repeated": share
    of rows whose pose equals the one before, "open": share of rows with an open command,
    "changes": (E,) gripper changes, "nan": {column: rows that are not finite}}.
    """
    columns = store.columns
    offsets = np.asarray(columns["episode_offsets"])
    time, position = np.asarray(columns["time"]), np.asarray(columns["position"])
    rotation = np.asarray(columns["rotation"])
    episode = np.repeat(np.arange(store.num_episodes), np.diff(offsets))
    within = np.diff(episode) == 0
    interval = np.diff(time)[within]
    travel = np.linalg.norm(np.diff(position, axis=0), axis=-1)[within]
    chord = np.linalg.norm(np.diff(rotation, axis=0), axis=-1)[within]
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
        "turning": 4 * np.arcsin(np.minimum(chord / 2, 1.0)) / interval,
        "repeated": float(np.mean((travel == 0) & (chord == 0))),
        "open": float(gripper_open.mean()),
        "changes": np.bincount(episode[1:], changed, store.num_episodes).astype(np.int64),
        "nan": {
            name: int((~np.isfinite(column)).reshape(len(column), -1).any(axis=1).sum())
            for name, column in columns.items()
            if column.dtype.kind == "f" and name != "cloud"
        },
    }


def guidance_error(store: TrajectoryStore) -> GuidanceError:
    """The guidance error of at most `GUIDED_EPISODES` episodes, evenly spaced in the store."""
    import jax  # here, so that --help need not wait for it

    numbers = np.unique(np.linspace(0, store.num_episodes - 1, GUIDED_EPISODES).astype(int))
    keyframes = [store.keyframes(number) for number in numbers]
    most = 1 << (max(map(len, keyframes)) - 1).bit_length()
    paths, plans, segments = [], [], []
    for number, rows in zip(numbers, keyframes, strict=True):
        episode = store.episode(number)
        frames = np.linspace(0, len(episode) - 1, GUIDED_FRAMES).astype(int)
        padded = np.pad(rows, (0, most - len(rows)), mode="edge")
        paths.append(episode.position[frames])
        plans.append(
            (episode.position[padded], episode.rotation[padded], episode.gripper[padded], len(rows))
        )
        segments.append(np.clip(np.searchsorted(rows, frames, "right") - 1, 0, len(rows) - 2))
    plans = [np.stack(part) for part in zip(*plans, strict=True)]
    distance = np.asarray(
        jax.jit(jax.vmap(_distance_to_curve))(np.stack(paths), np.stack(segments), *plans)
    )
    return GuidanceError(numbers, distance.mean(axis=1), distance.max(axis=1))


def _distance_to_curve(path, segment, position, rotation, gripper, count):
    """(F,) metres from frames (F, 3) to the curve's segments (F,) between their keyframes."""
    import jax.numpy as jnp

    from bridgeact_jax.geometry.guidance import SAMPLES_PER_SEGMENT, Waypoints, build_guidance

    curve = build_guidance(Waypoints(position, rotation, gripper, count)).position
    size = SAMPLES_PER_SEGMENT + 1
    samples = curve[segment[:, None] * size + jnp.arange(size)]
    chord, offset = jnp.diff(samples, axis=1), path[:, None] - samples[:, :-1]
    squared = jnp.sum(chord * chord, axis=-1)
    along = jnp.sum(offset * chord, axis=-1) / jnp.where(squared > 0, squared, 1.0)
    miss = offset - jnp.clip(along, 0.0, 1.0)[..., None] * chord
    return jnp.min(jnp.linalg.norm(miss, axis=-1), axis=1)


def inspection(store: TrajectoryStore, figures: Mapping[str, Any], error: GuidanceError) -> str:
    """The table `bridgeact inspect` prints."""
    manifest = store.manifest
    source = manifest["source"]
    clouds = ", with clouds" if "cloud" in store.columns else ""
    lines = [
        f"{manifest['episodes']:,} episodes, {manifest['steps']:,} steps{clouds}; "
        f"{source['dataset']} {source['version']} ({source['split']}), card {manifest['card']}",
        "",
        f"{'':15}{'min':>10}{'1 %':>10}{'mean':>10}{'99 %':>10}{'max':>10}{'std':>10}"
        f"{'NaN rows':>10}",
    ]
    for name, labels in SUMMARISED.items():
        for component, label in enumerate(labels or [""]):
            cells = [
                _component(manifest["stats"][name][figure], component)
                for figure in ("min", "q01", "mean", "q99", "max", "std")
            ]
            title = f"{name} {label}".strip()
            lines.append(f"{title:15}" + "".join(cells) + f"{figures['nan'][name]:>10,}")
    lines.append("")
    for title, values, unit in (
        ("steps per episode", figures["steps"], ""),
        ("episode length", figures["seconds"], " s"),
        ("rate", figures["hz"], " Hz"),
        ("speed", figures["speed"], " m/s"),
        ("turning", figures["turning"], " rad/s"),
        ("keyframes", figures["keyframes"], " per episode"),
        ("gripper changes", figures["changes"], " per episode"),
    ):
        low, middle, high = np.quantile(values, [0.0, 0.5, 1.0]).round(6)
        lines.append(f"{title:18} {low:.4g} .. {high:.4g}, median {middle:.4g}{unit}")
    worst = int(error.episodes[error.worst.argmax()])
    lines += [
        f"{'guidance error':18} mean {1e3 * error.mean.mean():.1f} mm, max "
        f"{1e3 * error.worst.max():.1f} mm (episode {store.episode(worst).index}), path to curve, "
        f"{len(error.episodes):,} episodes",
        f"{'gripper command':18} open in {figures['open']:.0%} of steps",
        f"{'repeated frames':18} {figures['repeated']:.1%} of steps",
        "",
        *problems(manifest),
    ]
    return "\n".join(lines)


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """What conversion noted: what is not recorded, the rotation check, flags and rejections."""
    recorded = manifest.get("recorded", {})
    lines = [
        f"{'not recorded':18} {name.replace('_', ' ')}"
        for name in ("rotation", "gripper", "gripper_width")
        if recorded.get(name) in ("none", False)
    ]
    if recorded.get("rotation") == "yaw":
        lines.append(f"{'not recorded':18} rotation but its yaw")
    check = manifest.get("rotation_check")
    if check:
        lines.append(f"{'rotation check':18} {check['answer']}: {check['reason']}")
        for reading, scores in check["scores"].items():
            known = [f"{name} {score:.3f}" for name, score in scores.items() if score is not None]
            claimed = " (the card's)" if reading == check["claim"] else ""
            lines.append(f"  {reading}{claimed}: {', '.join(known) or 'no evidence'}")
    for title in ("flagged", "rejected"):
        episodes = manifest.get(f"{title}_episodes", ())
        lines.append(f"{title + ' episodes':18} {len(episodes):,}")
        for reason, count in manifest.get(title, {}).items():
            which = [
                str(episode["index"])
                for episode in episodes
                if reason in episode.get("flags", [episode.get("reason")])
            ]
            more = ", ..." if len(which) > EPISODES_NAMED else ""
            lines.append(f"  {count:,}: {reason} (in {', '.join(which[:EPISODES_NAMED])}{more})")
    return lines


def _component(value: Any, component: int) -> str:
    if isinstance(value, list):
        value = value[component]
    return f"{'-':>10}" if value is None else f"{value:>10.3f}"


def define_flags() -> None:
    """Flags of `bridgeact inspect`."""
    flags.DEFINE_string("store", None, "trajectory store", required=True)
    flags.DEFINE_string("out", None, "new directory for the table and pictures")
    flags.DEFINE_boolean("overwrite", False, "replace an earlier inspection in --out")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact inspect`."""
    del argv
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # one small curve: leave accelerators alone
    options = flags.FLAGS
    inspect_store(options.store, options.out, overwrite=options.overwrite)


def inspect_store(
    path: str | os.PathLike, out: str | os.PathLike | None = None, *, overwrite: bool = False
) -> None:
    """Verify the store's checksums, print its table and draw it into the new directory `out`."""
    from bridgeact_jax.datasets.inspect_plots import draw_store  # imports matplotlib

    store = open_store(path)
    store.verify()
    figures, error = describe_store(store), guidance_error(store)
    table = inspection(store, figures, error)
    print(table)
    if out:
        with new_directory(out, marker=REPORT, overwrite=overwrite) as directory:
            (directory / REPORT).write_text(table + "\n", encoding="utf-8")
            draw_store(store, figures, 1e3 * error.worst, directory)
        print(f"\npictures in {out}")
