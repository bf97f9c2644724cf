"""Reads the numeric and text columns of an RLDS dataset directory, without TensorFlow.

The directory is what TensorFlow Datasets prepares: dataset_info.json (splits, shards),
features.json (columns) and shards of TFRecord or ArrayRecord, one episode a record.
"""

import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridgeact_jax.datasets import files
from bridgeact_jax.datasets.records import READERS
from bridgeact_jax.datasets.rlds_columns import STEPS, ColumnSpec, columns_of, decode
from bridgeact_jax.datasets.tf_example import MalformedExample, parse_columns
from bridgeact_jax.errors import UsageError, UserError, nearest

MOST_EPISODES = 100_000_000  # of a shard
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True)
class Split:
    """Shards of a split (paths or URLs) and how many episodes each holds."""

    files: tuple[str, ...]
    lengths: tuple[int, ...]

    @property
    def num_episodes(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class RldsDataset:
    """An opened RLDS directory. `columns` maps full keys ("steps/action") to their declaration."""

    directory: str
    name: str
    version: str
    file_format: str
    columns: Mapping[str, ColumnSpec]
    splits: Mapping[str, Split]

    def find_column(self, key: str) -> ColumnSpec | None:
        """The column `key` names, relative to a step or else to the episode; None if absent."""
        return self.columns.get(STEPS + key) or self.columns.get(key)

    def column_names(self) -> list[str]:
        """Keys a card may name, without the prefix of the steps; pictures left out."""
        return sorted(
            key.removeprefix(STEPS)
            for key, spec in self.columns.items()
            if spec.dtype != "image"
        )

    def split(self, name: str) -> Split:
        """A non-empty split with all its shards present; else UsageError or UserError."""
        if name not in self.splits:
            raise UsageError(f"{self.directory}: unknown split '{name}': "
                             f"{nearest(name, self.splits)}")
        split = self.splits[name]
        if split.num_episodes == 0:
            full = ", ".join(other for other in self.splits if self.splits[other].num_episodes)
            raise UserError(f"{self.directory}: the split '{name}' is empty: "
                            + (f"choose from {full}" if full else "so are all others"))
        present = files.stamps(self.directory)
        names = [os.path.basename(file) for file in split.files]
        missing = [name for name in names if name not in present]
        if missing:
            raise UserError(
                f"{self.directory}: {len(missing)} of {len(split.files)} shards of the split "
                f"'{name}' are missing, the first is {missing[0]}: fetch them"
            )
        return split

    def episodes(
        self, split: str, keys: Collection[str]
    ) -> Iterator[dict[str, np.ndarray | list[bytes]] | MalformedExample]:
        """Each episode's columns, one episode in memory at a time.

        Args:
          keys: full keys of the columns to parse.

        Yields {key: array (T, *shape), or list of bytes}; a column that does not belong to the
        steps has T = 1. A record with a missing or ill-sized column yields a MalformedExample
        instead. Raises UserError for a damaged shard or one with fewer or more episodes than
        dataset_info.json says.
        """
        for shard, length in enumerate(self.split(split).lengths):
            for record in self.records(split, shard, 0, length):
                yield self.parse(record, keys)

    def records(self, split: str, shard: int, start: int, stop: int) -> Iterator[bytes]:
        """The records start..stop - 1 of a shard, which must end with the last one it declares."""
        file, length = self.splits[split].files[shard], self.splits[split].lengths[shard]
        count = start
        for record in READERS[self.file_format](file, start):
            count += 1
            if count <= stop:
                yield record
            if count == stop < length:
                return
        if count != length:
            raise UserError(
                f"{file} holds {count} episodes where dataset_info.json says {length}: "
                "fetch it again"
            )

    def parse(
        self, record: bytes, keys: Collection[str]
    ) -> dict[str, np.ndarray | list[bytes]] | MalformedExample:
        """The columns of one record, as `episodes` gives them."""
        try:
            raw = parse_columns(record, keys)
            return {key: decode(raw, self.columns[key]) for key in keys}
        except MalformedExample as error:
            return error


def open_rlds(directory: str | os.PathLike) -> RldsDataset:
    """Open an RLDS directory. Raises UserError if it is none or of a format not read here."""
    directory = str(directory).rstrip("/") or "/"
    info = _load_json(directory, "dataset_info.json")
    features = _load_json(directory, "features.json")
    file_format = info.get("fileFormat") or "tfrecord"
    if file_format not in READERS:
        raise UserError(
            f"{directory}: file format '{file_format}' is not read here, only "
            + " and ".join(READERS)
        )
    try:
        columns = {spec.key: spec for spec in columns_of(features, "", ())}
        present = files.stamps(directory)
        splits = {
            split["name"]: _open_split(directory, present, info["name"], file_format, split)
            for split in info.get("splits", [])
        }
        name, version = info["name"], info.get("version", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{directory}: features.json or dataset_info.json is not as TensorFlow Datasets "
            f"writes it ({type(error).__name__}: {error})"
        ) from None
    if not any(spec.per_step for spec in columns.values()):
        raise UserError(f"{directory}: features.json has no 'steps': this is no RLDS dataset")
    return RldsDataset(directory, name, version, file_format, columns, splits)


def _load_json(directory: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read_bytes(files.join(directory, name)))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory}: {_what_is_missing(directory, name)}") from None
    except OSError as error:
        raise UserError(f"cannot read {directory}/{name}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"cannot read {directory}/{name}: it is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{directory}/{name} is not a JSON object")
    return content


def _what_is_missing(directory: str, name: str) -> str:
    what, found = f"no RLDS dataset (no {name})", []
    if not files.is_remote(directory):
        if not os.path.isdir(directory):
            what = "no such folder"
        below = pathlib.Path(directory)
        found = sorted(below.glob("*/dataset_info.json"))
        found = found or sorted(below.glob("*/*/dataset_info.json"))
    hint = f"did you mean {found[-1].parent}?" if found else (
        "the folder must hold dataset_info.json, features.json and the shards"
    )
    return f"{what}: {hint}"


def _open_split(
    directory: str,
    present: Collection[str],
    dataset: str,
    file_format: str,
    split: Mapping[str, Any],
) -> Split:
    lengths = tuple(int(length) for length in split.get("shardLengths", []))
    if not all(0 <= length <= MOST_EPISODES for length in lengths):
        raise ValueError(f"shardLengths of the split {split['name']}")
    template = split.get("filepathTemplate") or DEFAULT_TEMPLATE
    names = []
    for index in range(len(lengths)):
        words = {
            "DATASET": dataset,
            "SPLIT": split["name"],
            "FILEFORMAT": file_format,
            "SHARD_INDEX": f"{index:05d}",
            "NUM_SHARDS": f"{len(lengths):05d}",
            "SHARD_X_OF_Y": f"{index:05d}-of-{len(lengths):05d}",
        }
        name = template.format(**words)
        bare = template.format(**words | {"SHARD_X_OF_Y": f"{index:05d}"})
        names.append(bare if bare in present and name not in present else name)
    return Split(tuple(files.join(directory, name) for name in names), lengths)
