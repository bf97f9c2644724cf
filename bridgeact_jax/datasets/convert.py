"""`bridgeact convert`: an RLDS dataset, read through its card, to a trajectory store."""

import collections
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from bridgeact_jax.datasets.cards import Card, card_paths, find_card, load_card
from bridgeact_jax.datasets.directories import check_new_directory
from bridgeact_jax.datasets.episode import Episode, RejectedEpisode
from bridgeact_jax.datasets.interpret import bind_card, interpret_episode
from bridgeact_jax.datasets.rlds_reader import RldsDataset, open_rlds
from bridgeact_jax.datasets.store import MANIFEST, StoreWriter
from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.progress import Progress

KEYFRAME_TOLERANCE = 0.01
MAX_KEYFRAMES = (16, 64, 256)
MIN_PADDED_STEPS = 16


def convert_dataset(
    rlds: str | os.PathLike,
    out: str | os.PathLike,
    *,
    card: str | os.PathLike | None = None,
    split: str = "train",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Convert a split of the RLDS directory `rlds` into a new store at `out`.

    Args:
      card: a card's name or TOML file; by default the card that lists the dataset's name.
      overwrite: replace an existing store.

    Returns the manifest. An episode that cannot be used is left out, and the manifest says which
    and why. Raises UsageError or UserError, leaving nothing behind.
    """
    check_new_directory(out, marker=MANIFEST, overwrite=overwrite)
    dataset = open_rlds(rlds)
    chosen = load_card(card) if card else _card_for(dataset)
    keys = bind_card(chosen, dataset)
    total = dataset.split(split).num_episodes
    rejected: list[dict[str, Any]] = []
    with StoreWriter(out, with_cloud=chosen.cloud is not None, overwrite=overwrite) as writer:
        with Progress(total, "episodes", "convert") as progress:
            for index, result in enumerate(_interpreted(dataset, chosen, keys, split)):
                try:
                    if isinstance(result, RejectedEpisode):
                        raise result
                    writer.append(result, episode_keyframes(result))
                except RejectedEpisode as reason:
                    rejected.append({"index": index, "reason": str(reason)})
                progress.update(1, rejected=len(rejected))
        reasons = dict(collections.Counter(entry["reason"] for entry in rejected))
        if not writer.num_episodes:
            counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
            raise UserError(
                f"{rlds}: all {total} episodes were rejected: {counts}; check the conventions in "
                f"{chosen.path}"
            )
        return writer.finish(
            card=chosen.name,
            card_sha256=chosen.sha256,
            base_z_up=chosen.base_z_up,
            tool_frame=chosen.tool_frame,
            source={
                "dataset": dataset.name,
                "version": dataset.version,
                "split": split,
                "files": [file.name for file in dataset.splits[split].files],
            },
            rejected=reasons,
            rejected_episodes=rejected,
            keyframe_tolerance=KEYFRAME_TOLERANCE,
        )


def episode_keyframes(episode: Episode) -> np.ndarray:
    """(Q,) int32 rows of the episode's keyframes.

    Lengths are padded to powers of two, so that few shapes are compiled. Raises RejectedEpisode
    if no permitted number of keyframes describes the path within KEYFRAME_TOLERANCE.
    """
    from bridgeact_jax.geometry.keyframes import find_keyframes  # imports JAX

    steps = len(episode)
    size = max(MIN_PADDED_STEPS, 1 << (steps - 1).bit_length())
    rows = np.minimum(np.arange(size), steps - 1)
    path = [
        np.asarray(values)[rows] for values in (episode.position, episode.rotation, episode.gripper)
    ]
    for most in MAX_KEYFRAMES:
        index, count = find_keyframes(
            *path, np.int32(steps), max_keyframes=most, tolerance=KEYFRAME_TOLERANCE
        )
        if int(count) <= most:
            return np.asarray(index)[: int(count)]
    raise RejectedEpisode(
        f"{most} keyframes do not describe the path within {KEYFRAME_TOLERANCE} m"
    )


def _card_for(dataset: RldsDataset) -> Card:
    card = find_card(dataset.name)
    if card is None:
        raise UsageError(
            f"no card lists the dataset '{dataset.name}' ({dataset.directory}); give --card: "
            f"{nearest(dataset.name, card_paths())}"
        )
    return card


def _interpreted(
    dataset: RldsDataset, card: Card, keys: dict[str, str], split: str
) -> Iterator[Episode | RejectedEpisode]:
    for index, columns in enumerate(dataset.episodes(split, sorted(set(keys.values())))):
        if isinstance(columns, Exception):
            yield RejectedEpisode(f"malformed record: {columns}")
            continue
        try:
            yield interpret_episode(card, keys, columns, index)
        except RejectedEpisode as reason:
            yield reason


def define_flags() -> None:
    flags.DEFINE_string("rlds", None, "RLDS directory (holds dataset_info.json)", required=True)
    flags.DEFINE_string("card", None, "card's name or .toml file; default: by the dataset's name")
    flags.DEFINE_string("split", "train", "split to convert")
    flags.DEFINE_string("out", None, "directory of the new store", required=True)
    flags.DEFINE_boolean("overwrite", False, "replace an existing store")


def main(argv: list[str]) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # keyframes only: leave accelerators alone
    options = flags.FLAGS
    manifest = convert_dataset(
        options.rlds,
        options.out,
        card=options.card,
        split=options.split,
        overwrite=options.overwrite,
    )
    print(summary(options.out, manifest))


def summary(path: str | os.PathLike, manifest: dict[str, Any]) -> str:
    """The lines `convert` ends with."""
    position = manifest["stats"]["position"]
    low, high = (" ".join(f"{value:.3f}" for value in position[end]) for end in ("min", "max"))
    lines = [
        f"{path}: {manifest['episodes']:,} episodes, {manifest['steps']:,} steps, "
        f"{len(manifest['rejected_episodes']):,} rejected; card {manifest['card']}",
        f"positions {low} .. {high} m",
    ]
    lines += [f"rejected {count:,}: {reason}" for reason, count in manifest["rejected"].items()]
    return "\n".join(lines)
