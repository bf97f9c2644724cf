"""Writes an RLDS dataset as ArrayRecord or TFRecord, without TensorFlow.

The result is a plain TensorFlow Datasets directory (features.json, dataset_info.json, shards) that
`tfds.builder_from_directory(path)` opens: `.as_dataset(split="train")` reads TFRecord by
TensorFlow, `.as_data_source("train")` reads ArrayRecord without it.
"""

import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bridgeact_jax.datasets.directories import new_directory
from bridgeact_jax.datasets.records import WRITERS
from bridgeact_jax.datasets.tf_example import Column, serialize_columns
from bridgeact_jax.errors import UsageError, UserError, nearest

VERSION = "1.0.0"


class Feature(NamedTuple):
    """One column: `dtype` is a numpy dtype's name, "text" or "png"; `shape` is of one step.

    "png" is an encoded picture of `shape` (height, width, 3), 8 bits a channel.
    tf.Example knows only 32-bit floats, so a float16 or float64 feature is stored as its raw
    bytes (TensorFlow Datasets' `encoding: bytes`), exactly and compactly. `compressed` numbers are
    stored as deflated bytes (`encoding: zlib`).
    """

    dtype: str
    shape: tuple[int, ...] = ()
    description: str = ""
    compressed: bool = False

    @property
    def encoding(self) -> str:
        """How TensorFlow Datasets stores the numbers: "none", "bytes" or "zlib"."""
        if self.compressed:
            return "zlib"
        return "bytes" if self.dtype in ("float16", "float64") else "none"


def write_rlds(
    path: str | os.PathLike,
    name: str,
    episodes: Iterable[Mapping[str, Any]],
    features: Mapping[str, Any],
    *,
    description: str = "",
    citation: str = "",
    file_format: str = "array_record",
    episodes_per_shard: int = 100,
    overwrite: bool = False,
) -> int:
    """Stream `episodes` into the RLDS directory `path` and return their number.

    Args:
      path: the directory itself (what `builder_from_directory` opens); it appears complete or
        not at all.
      name: the dataset's name.
      episodes: {"steps": [{...}, ...], "episode_metadata": {...}}, nested as `features`.
      features: {"steps": nested dict of Feature, "episode_metadata": nested dict of Feature}.
      file_format: "array_record" or "tfrecord".
      episodes_per_shard: one episode is one record; small shards keep random access fast.
      overwrite: replace an existing RLDS directory.

    Raises UsageError for another file format, UserError if `path` exists and may not be replaced
    or there is no episode, ValueError if an episode does not fit `features`.
    """
    if file_format not in WRITERS:
        raise UsageError(f"unknown file format '{file_format}': {nearest(file_format, WRITERS)}")
    step_features = _flatten(features["steps"], "steps/")
    metadata_features = _flatten(features.get("episode_metadata", {}), "episode_metadata/")
    with new_directory(path, marker="dataset_info.json", overwrite=overwrite) as partial:
        shard_lengths: list[int] = []
        num_bytes = 0
        writer = None
        try:
            for episode in episodes:
                record = _serialize(episode, step_features, metadata_features)
                if writer is None or shard_lengths[-1] == episodes_per_shard:
                    if writer is not None:
                        writer.close()
                        writer = None
                    writer = WRITERS[file_format](partial / f"{len(shard_lengths):05d}")
                    shard_lengths.append(0)
                writer.write(record)
                shard_lengths[-1] += 1
                num_bytes += len(record)
        finally:
            if writer is not None:
                writer.close()
        if not shard_lengths:
            raise UserError(f"no episode to write to {path}")
        for index in range(len(shard_lengths)):
            final = f"{name}-train.{file_format}-{index:05d}-of-{len(shard_lengths):05d}"
            os.rename(partial / f"{index:05d}", partial / final)
        _write_features(partial, features)
        _write_info(
            partial, name, file_format, shard_lengths, num_bytes, description, citation
        )
    return sum(shard_lengths)


def _flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def _serialize(
    episode: Mapping[str, Any],
    step_features: Mapping[str, Feature],
    metadata_features: Mapping[str, Feature],
) -> bytes:
    steps = [_flatten(step, "steps/") for step in episode["steps"]]
    metadata = _flatten(episode.get("episode_metadata", {}), "episode_metadata/")
    if not steps:
        raise ValueError("an episode has no steps")
    for values, features in [*((step, step_features) for step in steps),
                             (metadata, metadata_features)]:
        if values.keys() != features.keys():
            wrong = sorted(values.keys() ^ features.keys())
            raise ValueError(f"an episode's keys differ from the features: {', '.join(wrong)}")
    columns = {
        key: _column(key, feature, [step[key] for step in steps])
        for key, feature in step_features.items()
    }
    columns |= {
        key: _column(key, feature, [metadata[key]]) for key, feature in metadata_features.items()
    }
    return serialize_columns(columns)


def _column(key: str, feature: Feature, values: list[Any]) -> Column:
    if feature.dtype == "text":
        return [str(value).encode() for value in values]
    array = np.asarray(values)
    if array.shape != (len(values), *feature.shape):
        raise ValueError(f"{key} has shape {array.shape[1:]} a step, not {feature.shape}")
    if feature.dtype == "png":
        return [_encoded(picture.astype(np.uint8)) for picture in array]
    array = array.astype(feature.dtype)
    if feature.encoding == "none":
        return array.reshape(-1)
    encode = zlib.compress if feature.compressed else bytes
    return [encode(row.tobytes()) for row in array]


def _encoded(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def _write_features(directory: pathlib.Path, features: Mapping[str, Any]) -> None:
    import tensorflow_datasets as tfds  # a second; needs no TensorFlow for this

    def build(tree: Mapping[str, Any] | Feature) -> Any:
        if isinstance(tree, Mapping):
            return tfds.features.FeaturesDict({key: build(value) for key, value in tree.items()})
        if tree.dtype == "text":
            return tfds.features.Text(doc=tree.description or None)
        if tree.dtype == "png":
            return tfds.features.Image(
                shape=tree.shape, encoding_format="png", doc=tree.description or None
            )
        return tfds.features.Tensor(
            shape=tree.shape,
            dtype=np.dtype(tree.dtype),
            encoding=tree.encoding,
            doc=tree.description or None,
        )

    top = {"steps": tfds.features.Dataset(build(features["steps"]))}
    if features.get("episode_metadata"):
        top["episode_metadata"] = build(features["episode_metadata"])
    tfds.features.FeaturesDict(top).save_config(directory)


def _write_info(
    directory: pathlib.Path,
    name: str,
    file_format: str,
    shard_lengths: list[int],
    num_bytes: int,
    description: str,
    citation: str,
) -> None:
    info = {
        "name": name,
        "version": VERSION,
        "description": description,
        "citation": citation,
        "fileFormat": file_format,
        "splits": [
            {
                "name": "train",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(num_bytes),
                "shardLengths": [str(length) for length in shard_lengths],
            }
        ],
    }
    (directory / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n")
