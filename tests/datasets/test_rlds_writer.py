"""What the writer writes, read back by TensorFlow Datasets and by the project's reader."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from grain.experimental import TFRecordIterDataset

from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.datasets.rlds_writer import Feature, write_rlds
from bridgeact_jax.errors import UsageError, UserError

FEATURES = {
    "steps": {
        "observation": {
            "position": Feature("float32", (3,), "metres"),
            "cloud": Feature("float16", (5, 3)),
            "exact": Feature("float64"),
        },
        "language_instruction": Feature("text"),
        "is_first": Feature("bool"),
        "count": Feature("int64"),
    },
    "episode_metadata": {"task": Feature("text"), "seed": Feature("int64")},
}


def make_episode(number: int) -> dict:
    rng = np.random.default_rng(number)
    steps = [
        {
            "observation": {
                "position": rng.normal(size=3).astype(np.float32),
                "cloud": rng.normal(size=(5, 3)).astype(np.float16),
                "exact": rng.normal(),
            },
            "language_instruction": f"räume {number} auf",
            "is_first": step == 0,
            "count": -(10**12) * step,
        }
        for step in range(2 + number)
    ]
    return {"steps": steps, "episode_metadata": {"task": "lift", "seed": -number}}


@pytest.fixture(params=["array_record", "tfrecord"])
def written(tmp_path, request):
    path = tmp_path / "demonstrations"
    episodes = [make_episode(number) for number in range(5)]
    options = {"file_format": request.param, "episodes_per_shard": 2}
    assert write_rlds(path, "toy", iter(episodes), FEATURES, **options) == 5
    return path, episodes


def test_tensorflow_datasets_reads_it(written):
    path, episodes = written
    builder = tfds.builder_from_directory(str(path))
    assert builder.info.name == "toy" and str(builder.version) == "1.0.0"
    assert builder.info.splits["train"].shard_lengths == [2, 2, 1]
    if builder.info.file_format.value == "tfrecord":  # as_dataset needs TensorFlow
        shards = sorted(path.glob("*.tfrecord-*-of-00003"))
        records = [record for shard in shards for record in TFRecordIterDataset(str(shard))]
        source = [builder.info.features.deserialize_example_np(record) for record in records]
    else:
        source = builder.as_data_source("train")
    assert len(source) == 5
    for number, episode in enumerate(episodes):
        read = source[number]
        assert read["episode_metadata"]["seed"] == -number
        steps = list(read["steps"])
        assert len(steps) == len(episode["steps"])
        for step, true in zip(steps, episode["steps"], strict=True):
            for key, value in true["observation"].items():
                np.testing.assert_array_equal(step["observation"][key], value)
            assert step["observation"]["cloud"].dtype == np.float16
            assert step["language_instruction"].decode() == true["language_instruction"]
            assert step["is_first"] == true["is_first"] and step["count"] == true["count"]


def test_the_reader_reads_it(written):
    path, episodes = written
    dataset = open_rlds(path)
    assert dataset.find_column("observation/cloud").shape == (5, 3)
    assert dataset.find_column("episode_metadata/task").dtype == "text"
    keys = [key for key in dataset.columns if key.startswith("steps/")]
    for columns, episode in zip(dataset.episodes("train", keys), episodes, strict=True):
        for key in ("position", "cloud", "exact"):
            truth = np.stack([step["observation"][key] for step in episode["steps"]])
            np.testing.assert_array_equal(columns[f"steps/observation/{key}"], truth)
            assert columns[f"steps/observation/{key}"].dtype == truth.dtype
        assert columns["steps/is_first"].tolist() == [
            step["is_first"] for step in episode["steps"]
        ]
        assert columns["steps/count"].tolist() == [step["count"] for step in episode["steps"]]


def test_failure_leaves_nothing(tmp_path):
    def failing():
        yield make_episode(0)
        raise RuntimeError("out of luck")

    path = tmp_path / "demonstrations"
    with pytest.raises(RuntimeError, match="out of luck"):
        write_rlds(path, "toy", failing(), FEATURES)
    with pytest.raises(UsageError, match="unknown file format 'tfrecrod': did you mean 'tfrecord'"):
        write_rlds(path, "toy", [make_episode(0)], FEATURES, file_format="tfrecrod")
    with pytest.raises(UserError, match="no episode to write"):
        write_rlds(path, "toy", [], FEATURES)
    assert list(tmp_path.iterdir()) == []


def test_existing_directories(written, tmp_path):
    path, episodes = written
    with pytest.raises(UserError, match="exists: choose another path, or overwrite"):
        write_rlds(path, "toy", episodes, FEATURES)
    write_rlds(path, "toy", episodes[:1], FEATURES, overwrite=True)
    assert open_rlds(path).split("train").num_episodes == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(UserError, match="holds no dataset_info.json: choose another path"):
        write_rlds(tmp_path / "mine", "toy", episodes, FEATURES, overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_episodes_that_do_not_fit_are_refused(tmp_path, change):
    episode = make_episode(0)
    if change == "missing":
        del episode["steps"][1]["count"]
    elif change == "unknown":
        episode["steps"][1]["extra"] = 1.0
    else:
        for step in episode["steps"]:
            step["observation"]["position"] = np.zeros(4)
    match = {"missing": "steps/count", "unknown": "steps/extra", "shape": "not \\(3,\\)"}[change]
    with pytest.raises(ValueError, match=match):
        write_rlds(tmp_path / "x", "toy", [episode], FEATURES)
