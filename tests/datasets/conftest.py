"""Small RLDS datasets written by means other than the code under test."""

import json
import math
import pathlib

import google_crc32c
import numpy as np
import pytest

from bridgeact_jax.datasets.store import StoreWriter
from tests.datasets.planted_store import FACTS, make_episode


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return ((rotated + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def frame(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    return length + masked_crc(length) + data + masked_crc(data)


def example(columns: dict[str, object]) -> bytes:
    """A tf.Example by protobuf; lists of bytes, float arrays or integer arrays."""
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()
    for name, values in columns.items():
        feature = message.features.feature[name]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        elif np.asarray(values).dtype.kind == "f":
            feature.float_list.value.extend(np.asarray(values).ravel().tolist())
        else:
            feature.int64_list.value.extend(np.asarray(values).ravel().astype(int).tolist())
    return message.SerializeToString()


class Rlds:
    """Writes a TFRecord RLDS directory from scratch."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory

    def write(
        self,
        episodes: list[dict[str, object]],
        shapes: dict[str, tuple[str, tuple[int, ...], str]],
        *,
        name: str = "toy",
        shards: int = 1,
        lengths: list[int] | None = None,
    ) -> pathlib.Path:
        """shapes: {key within a step: (dtype, shape, encoding)}; episodes: {full key: values}."""
        self.directory.mkdir(exist_ok=True)
        features: dict = {}
        for key, (dtype, shape, encoding) in shapes.items():
            leaf = {
                "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                "tensor": {
                    "shape": {"dimensions": [str(size) for size in shape]} if shape else {},
                    "dtype": dtype,
                    "encoding": encoding,
                },
            }
            level = features
            *parents, last = key.split("/")
            for parent in parents:
                level = level.setdefault(parent, {"featuresDict": {"features": {}}})
                level = level["featuresDict"]["features"]
            level[last] = leaf
        inner = {"featuresDict": {"features": features}}
        steps = {"sequence": {"feature": inner, "length": "-1"}}
        tree = {"featuresDict": {"features": {"steps": steps}}}
        (self.directory / "features.json").write_text(json.dumps(tree))
        per_shard = math.ceil(len(episodes) / shards) if episodes else 0
        counts = []
        for index in range(shards):
            part = episodes[index * per_shard : (index + 1) * per_shard]
            counts.append(len(part))
            path = self.directory / f"{name}-train.tfrecord-{index:05d}-of-{shards:05d}"
            path.write_bytes(b"".join(frame(example(episode)) for episode in part))
        info = {
            "name": name,
            "version": "1.0.0",
            "fileFormat": "tfrecord",
            "splits": [
                {
                    "name": "train",
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                    "shardLengths": [str(count) for count in lengths or counts],
                },
                {"name": "val", "shardLengths": ["0"]},
            ],
        }
        (self.directory / "dataset_info.json").write_text(json.dumps(info))
        return self.directory


@pytest.fixture
def rlds(tmp_path):
    return Rlds(tmp_path / "rlds")


@pytest.fixture
def make_frame():
    return frame


@pytest.fixture
def make_example():
    return example


TOY_SHAPES = {
    "observation/state": ("float32", (8,), "none"),
    "action": ("float32", (7,), "none"),
    "language_instruction": ("string", (), "none"),
}

TOY_CARD = """
name = "toy"
title = "Toy"
dataset_names = ["toy"]
robot = "none"
licence = "none"
homepage = ""
citation = ""
[position]
key = "observation/state"
slice = [0, 3]
claim = "documented"
[rotation]
key = "observation/state"
slice = [3, 7]
convention = "quaternion"
order = "wxyz"
claim = "assumed"
[gripper]
source = "command"
key = "action"
slice = [6, 7]
closed = 1.0
open = -1.0
claim = "inferred"
[gripper_width]
key = "observation/state"
slice = [7, 8]
closed = 0.0
open = 0.08
claim = "documented"
[clock]
hz = 10.0
claim = "documented"
[instruction]
key = "language_instruction"
claim = "documented"
[base]
z_up = true
claim = "documented"
"""


class Toy:
    """A dataset of straight motions with known poses, its card and its truth."""

    shapes = TOY_SHAPES
    card_text = TOY_CARD

    @staticmethod
    def columns(number: int, steps: int = 12) -> dict[str, object]:
        t = np.linspace(0.0, 1.0, steps)
        position = np.stack([0.3 + 0.1 * t, 0.02 * number + 0 * t, 0.2 - 0.05 * t], 1)
        half = 0.25 * t + 0.1 * number
        quaternion = np.stack([np.cos(half), 0 * t, 0 * t, np.sin(half)], 1)
        width = np.full((steps, 1), 0.04)
        action = np.zeros((steps, 7))
        action[:, 6] = np.where(t < 0.5, -1.0, 1.0)
        return {
            "steps/observation/state": np.concatenate([position, quaternion, width], 1),
            "steps/action": action,
            "steps/language_instruction": [f"move {number}".encode()] * steps,
        }


@pytest.fixture
def toy(rlds, tmp_path):
    """(directory, card file) of the toy dataset with 3 episodes, and the class `Toy`."""
    rlds.write([Toy.columns(number) for number in range(3)], Toy.shapes)
    card = tmp_path / "toy.toml"
    card.write_text(Toy.card_text)
    return rlds.directory, card, Toy


@pytest.fixture
def store(tmp_path):
    """A store of three planted episodes, of 4, 10 and 6 steps."""
    path = tmp_path / "store"
    with StoreWriter(path, with_cloud=False) as writer:
        for number, steps in enumerate((4, 10, 6)):
            writer.append(make_episode(number, steps), np.array([0, steps // 2, steps - 1]))
        writer.finish(**FACTS)
    return path


@pytest.fixture
def many(rlds, toy):
    """A dataset of 20 episodes in 5 shards, two of them bad; (directory, card)."""
    _, card, data = toy
    episodes = [data.columns(number, steps=12 + number) for number in range(20)]
    episodes[7] = data.columns(7, steps=1)
    episodes[13]["steps/observation/state"][:, 3:7] *= 2
    rlds.write(episodes, data.shapes, shards=5)
    return rlds.directory, card


def content(folder) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}
