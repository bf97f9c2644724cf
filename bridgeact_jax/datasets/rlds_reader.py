"""Reads the numeric and text columns of an RLDS dataset directory, without TensorFlow.

The directory is what TensorFlow Datasets prepares: dataset_info.json (splits, shards),
features.json (columns) and shards of TFRecord or ArrayRecord, one episode a record.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridgeact_jax.datasets.records import READERS
from bridgeact_jax.datasets.tf_example import Column, MalformedExample, parse_columns
from bridgeact_jax.errors import UsageError, UserError, nearest

STEPS = "steps/"
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True)
class ColumnSpec:
    """How a column is declared: `shape` of one value, `encoding` none, bytes or zlib.

    dtype is a numpy dtype's name, or "text", or "image" (never read).
    """

    key: str
    dtype: str
    shape: tuple[int | None, ...]
    encoding: str = "none"

    @property
    def per_step(self) -> bool:
        return self.key.startswith(STEPS)


@dataclass(frozen=True)
class Split:
    """Shards of a split and how many episodes each holds."""

    files: tuple[pathlib.Path, ...]
    lengths: tuple[int, ...]

    @property
    def num_episodes(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class RldsDataset:
    """An opened RLDS directory. `columns` maps full keys ("steps/action") to their declaration."""

    directory: pathlib.Path
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
        missing = [file.name for file in split.files if not file.is_file()]
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
        read = READERS[self.file_format]
        chosen = self.split(split)
        for file, length in zip(chosen.files, chosen.lengths, strict=True):
            count = 0
            for record in read(file):
                count += 1
                if count <= length:
                    try:
                        raw = parse_columns(record, keys)
                        yield {key: _decode(raw, self.columns[key]) for key in keys}
                    except MalformedExample as error:
                        yield error
            if count != length:
                raise UserError(
                    f"{file} holds {count} episodes where dataset_info.json says {length}: "
                    "fetch it again"
                )


def open_rlds(directory: str | os.PathLike) -> RldsDataset:
    """Open an RLDS directory. Raises UserError if it is none or of a format not read here."""
    directory = pathlib.Path(directory)
    info = _load_json(directory, "dataset_info.json")
    features = _load_json(directory, "features.json")
    file_format = info.get("fileFormat") or "tfrecord"
    if file_format not in READERS:
        raise UserError(
            f"{directory}: file format '{file_format}' is not read here, only "
            + " and ".join(READERS)
        )
    try:
        columns = {spec.key: spec for spec in _columns(features, "", ())}
        splits = {
            split["name"]: _open_split(directory, info["name"], file_format, split)
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


def _load_json(directory: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((directory / name).read_text())
    except (FileNotFoundError, NotADirectoryError):
        found = sorted(path.parent for path in directory.glob("*/dataset_info.json"))
        found = found or sorted(path.parent for path in directory.glob("*/*/dataset_info.json"))
        hint = f"did you mean {found[-1]}?" if found else (
            "the folder must hold dataset_info.json, features.json and the shards"
        )
        what = "no such folder" if not directory.is_dir() else f"no RLDS dataset (no {name})"
        raise UserError(f"{directory}: {what}: {hint}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {directory / name}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{directory / name} is not a JSON object")
    return content


def _open_split(
    directory: pathlib.Path, dataset: str, file_format: str, split: Mapping[str, Any]
) -> Split:
    lengths = tuple(int(length) for length in split.get("shardLengths", []))
    template = split.get("filepathTemplate") or DEFAULT_TEMPLATE
    files = []
    for index in range(len(lengths)):
        words = {
            "DATASET": dataset,
            "SPLIT": split["name"],
            "FILEFORMAT": file_format,
            "SHARD_INDEX": f"{index:05d}",
            "NUM_SHARDS": f"{len(lengths):05d}",
            "SHARD_X_OF_Y": f"{index:05d}-of-{len(lengths):05d}",
        }
        file = directory / template.format(**words)
        bare = directory / template.format(**words | {"SHARD_X_OF_Y": f"{index:05d}"})
        files.append(bare if bare.is_file() and not file.is_file() else file)
    return Split(tuple(files), lengths)


def _columns(
    feature: Mapping[str, Any], key: str, outer: tuple[int | None, ...]
) -> Iterator[ColumnSpec]:
    """The leaves of a feature as features.json stores it (feature.proto as JSON)."""
    if "featuresDict" in feature:
        for name, inner in feature["featuresDict"].get("features", {}).items():
            yield from _columns(inner, f"{key}/{name}" if key else name, outer)
    elif "sequence" in feature:
        sequence = feature["sequence"]
        length = int(sequence.get("length", -1))
        levels = () if key + "/" == STEPS else (*outer, None if length < 0 else length)
        yield from _columns(sequence["feature"], key, levels)
    elif "tensor" in feature:
        tensor = feature["tensor"]
        dtype = "text" if tensor["dtype"] in ("string", "object") else tensor["dtype"]
        sizes = (int(size) for size in tensor["shape"].get("dimensions", []))
        shape = (*outer, *(None if size < 0 else size for size in sizes))
        yield ColumnSpec(key, dtype, shape, tensor.get("encoding") or "none")
    elif "text" in feature:
        yield ColumnSpec(key, "text", outer)
    else:
        yield ColumnSpec(key, "image", outer)


def _decode(raw: Mapping[str, Column], spec: ColumnSpec) -> np.ndarray | list[bytes]:
    if spec.key not in raw:
        raise MalformedExample(f"column {spec.key} is missing")
    values = raw[spec.key]
    if spec.dtype == "text":
        if not isinstance(values, list):
            raise MalformedExample(f"column {spec.key} is not text")
        return values
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    if isinstance(values, list):
        if spec.encoding == "none":
            raise MalformedExample(f"column {spec.key} is not numeric")
        values = np.frombuffer(_join(values, spec), dtype)
    size = int(np.prod(spec.shape))
    if len(values) % size:
        raise MalformedExample(f"column {spec.key} is not a multiple of {size} numbers")
    return values.reshape(-1, *spec.shape).astype(dtype.newbyteorder("="), copy=False)


def _join(values: list[bytes], spec: ColumnSpec) -> bytes:
    """The bytes of an encoded column's values, each of the size it is declared with."""
    size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    if spec.encoding == "zlib":
        try:
            values = [_inflate(value, size) for value in values]
        except zlib.error as error:
            raise MalformedExample(f"column {spec.key} does not inflate: {error}") from None
    if any(len(value) != size for value in values):
        raise MalformedExample(f"column {spec.key} has a value that is not {size} bytes")
    return b"".join(values)


def _inflate(value: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(value, size + 1)
