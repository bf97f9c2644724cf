"""Tiny RLDS copies of the Open X-Embodiment datasets, with planted poses and grippers.

A copy has every column of the dataset (oxe_specs.csv). What oxe_layouts.toml says of the pose and
the gripper is derived from the planted motion; all else is random. Pictures hold no pixel.
"""

import csv
import functools
import json
import pathlib
import re
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from bridgeact_jax.datasets.records import masked_crc
from bridgeact_jax.datasets.tf_example import serialize_columns
from tests.datasets import oxe_poses
from tests.datasets.oxe_poses import Motion

HERE = pathlib.Path(__file__).parent
FEATURES = "tensorflow_datasets.core.features."
PICTURE = b"\x89PNG\r\n\x1a\n"
WIDTHS = (0.1, 0.9)
"""Measured opening, as a fraction, while the gripper is commanded closed and open."""


@dataclass(frozen=True)
class Spec:
    """One column: `shape` of one step's value, None where it varies."""

    key: str
    dtype: str
    shape: tuple[int | None, ...]
    encoding: str

    @property
    def is_text(self) -> bool:
        return self.dtype in ("text", "string")

    @property
    def is_picture(self) -> bool:
        return self.encoding.startswith("image")


@functools.cache
def specs() -> dict[str, list[Spec]]:
    """{dataset: its columns}."""
    table: dict[str, list[Spec]] = {}
    with open(HERE / "oxe_specs.csv", newline="") as file:
        for line in csv.DictReader(file):
            sizes = [size for size in line["shape"].split("x") if size]
            shape = tuple(None if size == "*" else int(size) for size in sizes)
            spec = Spec(line["key"], line["dtype"], shape, line["encoding"])
            table.setdefault(line["dataset"], []).append(spec)
    return table


@functools.cache
def layouts() -> dict[str, dict]:
    """{dataset, or dataset and arm: its table of oxe_layouts.toml}, with `dataset` and `card`."""
    tables = tomllib.loads((HERE / "oxe_layouts.toml").read_text(encoding="utf-8"))
    return {name: {"dataset": name, "card": None} | table for name, table in tables.items()}


def parse(entry: str) -> tuple[str, slice, list[str]]:
    """(full key, slice, words) of an entry of oxe_layouts.toml."""
    where, *words = entry.split()
    key, start, stop = re.fullmatch(r"([^[]+)(?:\[(\d+):(\d+)\])?", where).groups()
    return "steps/" + key, slice(int(start), int(stop)) if start else slice(None), words


def instruction(number: int) -> str:
    return f"Öffne die Tür № {number}, 静かに"


def write_copy(
    directory: pathlib.Path, name: str, motions: list[Motion], file_format: str = "tfrecord"
) -> pathlib.Path:
    """Write an RLDS directory by the layout `name`: one episode a motion, in two shards."""
    directory.mkdir()
    dataset = layouts()[name]["dataset"]
    records = [
        serialize_columns(columns(layouts()[name], motion, number))
        for number, motion in enumerate(motions)
    ]
    shards = records[:-1], records[-1:]
    for index, shard in enumerate(shards):
        path = directory / f"{dataset}-train.{file_format}-{index:05d}-of-00002"
        _write_shard(path, shard, file_format)
    (directory / "features.json").write_text(json.dumps(features(specs()[dataset])))
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "shardLengths": [str(len(shard)) for shard in shards],
    }
    info = {"name": dataset, "version": "0.1.0", "fileFormat": file_format, "splits": [split]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory


def columns(layout: dict, motion: Motion, number: int) -> dict[str, np.ndarray | list[bytes]]:
    """The columns of episode `number` as tf.Example holds them, flat."""
    rng = np.random.default_rng(number)
    steps = len(motion.position)
    declared = specs()[layout["dataset"]]
    raw = {
        spec.key: rng.normal(size=(steps, *spec.shape)).reshape(steps, -1)
        for spec in declared
        if spec.key.startswith("steps/") and not (spec.is_text or spec.is_picture)
    }
    for key, where, values in planted(layout, motion, number):
        raw[key][:, where] = values
    stored = {}
    for spec in declared:
        rows = steps if spec.key.startswith("steps/") else 1
        stored |= _stored(spec, raw.get(spec.key), rows, number)
    return stored


def planted(
    layout: dict, motion: Motion, number: int
) -> Iterator[tuple[str, slice, np.ndarray]]:
    """(full key, slice, (T, n) values) of every column the layout names."""
    low, high = motion.position.min(0) - 0.1, motion.position.max(0) + 0.3
    for entry in layout.get("position", []):
        key, where, words = parse(entry)
        values = motion.position
        if words[:1] == ["scale"]:
            values = values / float(words[1])
        elif words[:1] == ["between"]:
            values = (values - low) / (high - low)
            yield "steps/" + words[1], where, low
            yield "steps/" + words[2], where, high
        yield key, where, values
    for entry in layout.get("pose", []):
        key, where, (_, order) = parse(entry)
        orders = ("row", "column") if order == "either" else (order,)
        yield key, where, oxe_poses.homogeneous(motion, orders[number % len(orders)])
    for entry in layout.get("rotation", []):
        key, where, words = parse(entry)
        yield key, where, _rotation(motion, *words)
    for entry in layout.get("gripper", []):
        key, where, (kind, closed, opened) = parse(entry)
        yield key, where, _gripper(motion.gripper, kind, float(closed), float(opened))[:, None]


def features(columns: list[Spec]) -> dict:
    """features.json of these columns, as TensorFlow Datasets writes it."""
    tree: dict = {}
    for spec in columns:
        *parents, last = spec.key.split("/")
        level = tree
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = spec
    return _feature(tree, top=True)


def _feature(node: dict | Spec, top: bool = False) -> dict:
    if isinstance(node, Spec):
        return _leaf(node)
    inner = {name: _feature(child) for name, child in node.items()}
    if top:
        inner["steps"] = {
            "pythonClassName": FEATURES + "dataset_feature.Dataset",
            "sequence": {"feature": inner["steps"], "length": "-1"},
        }
    return {
        "pythonClassName": FEATURES + "features_dict.FeaturesDict",
        "featuresDict": {"features": inner},
    }


def _leaf(spec: Spec) -> dict:
    if None in spec.shape:
        inner = _leaf(Spec(spec.key, spec.dtype, spec.shape[1:], spec.encoding))
        return {
            "pythonClassName": FEATURES + "sequence_feature.Sequence",
            "sequence": {"feature": inner, "length": "-1"},
        }
    if spec.dtype == "text":
        return {"pythonClassName": FEATURES + "text_feature.Text", "text": {}}
    shape = {"dimensions": [str(size) for size in spec.shape]} if spec.shape else {}
    body = {"shape": shape, "dtype": spec.dtype}
    if spec.is_picture:
        encoding = spec.encoding.removeprefix("image:")
        body |= {"encodingFormat": encoding} if encoding else {}
        return {"pythonClassName": FEATURES + "image_feature.Image", "image": body}
    body["encoding"] = spec.encoding
    return {"pythonClassName": FEATURES + "tensor_feature.Tensor", "tensor": body}


def _stored(
    spec: Spec, values: np.ndarray | None, rows: int, number: int
) -> dict[str, np.ndarray | list[bytes]]:
    """A column as TensorFlow Datasets stores it, by its declaration."""
    if None in spec.shape:
        lengths = np.arange(rows) % 3
        return {
            spec.key + "/ragged_flat_values": [b"shelf"] * int(lengths.sum()),
            spec.key + "/ragged_row_lengths_0": lengths,
        }
    if spec.is_picture:
        return {spec.key: [PICTURE if number else b""] * rows}
    if spec.is_text:
        said = instruction(number) if "instruction" in spec.key else "other words"
        return {spec.key: [said.encode()] * rows}
    if values is None:
        values = np.random.default_rng(0).normal(size=(rows, *spec.shape))
    if spec.dtype.startswith("float"):
        values = values.astype(spec.dtype)
    elif spec.dtype == "bool":
        values = values > 0.5
    else:
        values = np.abs(values).round().astype(np.int64)
    if spec.encoding == "zlib":
        return {spec.key: [zlib.compress(row.astype("<f4").tobytes()) for row in values]}
    return {spec.key: values.reshape(-1)}


def _rotation(motion: Motion, convention: str, *words: str) -> np.ndarray:
    if convention == "quaternion":
        turned = motion.quaternion.copy()
        turned[len(turned) // 2 :] *= -1  # the same rotation
        return turned if words == ("wxyz",) else np.roll(turned, -1, axis=1)
    if convention == "rotvec":
        return oxe_poses.rotation_vector(motion.quaternion)
    if convention == "yaw":
        return motion.yaw[:, None]
    axes, *options = words
    matrix = motion.matrix
    if "turned" in options:
        matrix = oxe_poses.turn_matrix("x", np.full(len(matrix), np.pi)) @ matrix
    angles = oxe_poses.euler(matrix, axes)
    angles = np.rad2deg(angles) if "deg" in options else angles
    return angles / float(options[options.index("scale") + 1]) if "scale" in options else angles


def _gripper(opened: np.ndarray, kind: str, closed_value: float, open_value: float) -> np.ndarray:
    if kind == "change":
        change = np.diff(opened, prepend=opened[0])
        return np.select([change < 0, change > 0], [closed_value, open_value])
    low, high = WIDTHS if kind == "width" else (0.0, 1.0)
    fraction = low + (high - low) * opened
    return closed_value + (open_value - closed_value) * fraction


def _write_shard(path: pathlib.Path, records: list[bytes], file_format: str) -> None:
    if file_format == "array_record":
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        return
    with open(path, "wb") as file:
        for record in records:
            length = len(record).to_bytes(8, "little")
            file.write(length + masked_crc(length).to_bytes(4, "little"))
            file.write(record + masked_crc(record).to_bytes(4, "little"))
