"""Datasets that are not what their feature description says, or of unusual episodes."""

import json
import zlib

import numpy as np
import pytest

from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.datasets.store import open_store
from bridgeact_jax.errors import UserError

STATE = "steps/observation/state"


def describe(directory, key: str, **changes) -> None:
    """Change what features.json says of a step's column."""
    path = directory / "features.json"
    tree = json.loads(path.read_text())
    level = tree["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    for name in key.split("/"):
        level = level["featuresDict"]["features"][name]
    level["tensor"] |= changes
    path.write_text(json.dumps(tree))


def encode(values: np.ndarray, dtype: str = "float32") -> list[bytes]:
    return [zlib.compress(row.astype(dtype).tobytes()) for row in values]


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        ("observation/state", {"shape": {"dimensions": ["9"]}}, "not a multiple of 9 numbers"),
        ("observation/state", {"shape": {"dimensions": ["16"]}}, "columns differ in length"),
        ("observation/state", {"shape": {"dimensions": ["4"]}}, "has 4 numbers a step"),
        ("observation/state", {"shape": {"dimensions": ["0"]}}, "has 0 numbers a step"),
        ("observation/state", {"shape": {"dimensions": ["-1"]}}, "a varying shape"),
        ("observation/state", {"dtype": "string"}, "holds text, not numbers"),
        ("observation/state", {"dtype": "int64"}, "holds floats, not int64"),
        ("observation/state", {"dtype": "float23"}, "is of no known type: float23"),
        ("observation/state", {"dtype": None}, "is of no known type: None"),
        ("language_instruction", {"dtype": "float32"}, "holds float32, not text"),
    ],
)
def test_a_wrong_description_is_no_wrong_episode(toy, tmp_path, key, changes, reason):
    directory, card, _ = toy
    describe(directory, key, **changes)
    with pytest.raises(UserError, match=reason):
        convert_dataset(directory, tmp_path / "store", card=card)
    assert not (tmp_path / "store").exists()


def test_encoded_columns_that_do_not_inflate(rlds, toy, tmp_path):
    _, card, data = toy
    shapes = data.shapes | {"observation/state": ("float32", (8,), "zlib")}
    episodes = [data.columns(number) for number in range(6)]
    whole = [encode(episode[STATE]) for episode in episodes]
    whole[1][4] = b"no zlib"
    whole[2][4] = whole[2][4][:-9]
    whole[3][4] = b""
    whole[4][4] = zlib.compress(bytes(50_000_000))
    for episode, values in zip(episodes, whole, strict=True):
        episode[STATE] = values
    rlds.write(episodes, shapes)
    manifest = convert_dataset(rlds.directory, tmp_path / "store", card=card, max_rejected=0.9)
    assert manifest["episodes"] == 2
    reasons = {entry["index"]: entry["reason"] for entry in manifest["rejected_episodes"]}
    assert sorted(reasons) == [1, 2, 3, 4]
    assert f"malformed record: column {STATE} does not inflate" in reasons[1]
    assert all(STATE in reason and "malformed record" in reason for reason in reasons.values())
    truth = data.columns(5)[STATE][:, :3]
    np.testing.assert_allclose(open_store(tmp_path / "store").episode(1).position, truth, atol=1e-7)


def test_split_files_without_their_number_of_shards(rlds, toy, tmp_path):
    _, card, data = toy
    rlds.write([data.columns(number) for number in range(5)], data.shapes, shards=3)
    for path in rlds.directory.glob("*-of-*"):
        path.rename(path.with_name(path.name.split("-of-")[0]))
    manifest = convert_dataset(rlds.directory, tmp_path / "store", card=card)
    assert manifest["episodes"] == 5
    assert manifest["source"]["files"][1] == "toy-train.tfrecord-00001"


def test_episodes_of_no_one_and_two_steps(rlds, toy, tmp_path):
    _, card, data = toy
    empty = {key: list(values[:0]) if isinstance(values, list) else values[:0]
             for key, values in data.columns(0).items()}
    rlds.write([empty, data.columns(1, steps=1), data.columns(2, steps=2)], data.shapes)
    manifest = convert_dataset(rlds.directory, tmp_path / "store", card=card, max_rejected=0.9)
    assert [entry["index"] for entry in manifest["rejected_episodes"]] == [0, 1]
    assert {entry["reason"] for entry in manifest["rejected_episodes"]} == {"fewer than 2 steps"}
    store = open_store(tmp_path / "store")
    assert store.num_episodes == 1
    episode = store.episode(0)
    np.testing.assert_allclose(episode.position, data.columns(2, steps=2)[STATE][:, :3], atol=1e-7)
    assert store.keyframes(0).tolist() == [0, 1]


def test_an_arm_that_never_moves_is_left_out(rlds, toy, tmp_path):
    _, card, data = toy
    still = data.columns(1)
    still[STATE][:] = still[STATE][:1]
    rlds.write([data.columns(0), still], data.shapes)
    manifest = convert_dataset(rlds.directory, tmp_path / "store", card=card)
    assert manifest["rejected_episodes"] == [{"index": 1, "reason": "the arm never moves"}]


GRIPPER_CARD = """
[gripper]
source = "command"
key = "gripper"
closed = 0
open = {most}
claim = "documented"
"""


@pytest.mark.parametrize(
    ("dtype", "encoding", "most"),
    [
        ("uint8", "none", 255),
        ("uint8", "zlib", 255),
        ("bool", "none", 1),
        ("bool", "bytes", 1),
        ("float64", "bytes", 0.5),
        ("float16", "none", 0.5),
        ("bfloat16", "none", 0.5),
        ("bfloat16", "zlib", 0.5),
        ("bfloat16", "bytes", 0.5),
        ("uint64", "none", 3),
    ],
)
def test_grippers_of_any_number_type(rlds, toy, tmp_path, dtype, encoding, most):
    import ml_dtypes

    _, card, data = toy
    text = data.card_text
    start, end = text.index("[gripper]"), text.index("[gripper_width]")
    card.write_text(text[:start] + GRIPPER_CARD.format(most=most) + text[end:])
    episode = data.columns(0)
    opened = (np.arange(12) % 4 < 2).astype(float)
    numpy_dtype = getattr(ml_dtypes, dtype, dtype)
    raw = (opened * most).astype(numpy_dtype)
    if encoding == "none":
        raw = raw.astype(float if "float" in dtype else np.int64)
    else:
        compress = zlib.compress if encoding == "zlib" else bytes
        raw = [compress(value.tobytes()) for value in raw]
    rlds.write(
        [episode | {"steps/gripper": raw}], data.shapes | {"gripper": (dtype, (), encoding)}
    )
    convert_dataset(rlds.directory, tmp_path / "store", card=card)
    np.testing.assert_array_equal(open_store(tmp_path / "store").episode(0).gripper, opened)


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["Öffne die Tür № 3, 静かに 🚪"] * 12, "Öffne die Tür № 3, 静かに 🚪"),
        (["", "  ", "pick it up", *["then place it"] * 9], "pick it up"),
        ([""] * 12, ""),
        ([b"caf\xe9 latte"] * 12, "caf\ufffd latte"),
    ],
)
def test_instructions(rlds, toy, tmp_path, texts, wanted):
    _, card, data = toy
    coded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    rlds.write([data.columns(0) | {"steps/language_instruction": coded}], data.shapes)
    convert_dataset(rlds.directory, tmp_path / "store", card=card)
    assert open_store(tmp_path / "store").episode(0).instruction == wanted


@pytest.mark.slow
@pytest.mark.parametrize("winding", [False, True])
def test_an_episode_of_a_hundred_thousand_steps(rlds, toy, tmp_path, winding):
    """Nearly three hours at 10 Hz: kept, or too much for its keyframes and left out."""
    _, card, data = toy
    episode = data.columns(0, steps=100_000)
    if winding:
        episode[STATE][:, 2] += 0.1 * np.sin(0.05 * np.arange(100_000))
    rlds.write([episode, data.columns(1)], data.shapes)
    manifest = convert_dataset(rlds.directory, tmp_path / "store", card=card)
    if winding:
        [left_out] = manifest["rejected_episodes"]
        assert left_out["index"] == 0 and "keyframes do not describe" in left_out["reason"]
    else:
        assert manifest["steps"] == 100_012
        read = open_store(tmp_path / "store").episode(0)
        np.testing.assert_allclose(read.position, episode[STATE][:, :3], atol=1e-6)
