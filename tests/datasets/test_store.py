"""The store's writer and reader on planted episodes, and damaged stores."""

import json

import numpy as np
import pytest

from bridgeact_jax.datasets.store import COLUMNS, StoreWriter, open_store
from bridgeact_jax.errors import UserError
from tests.datasets.planted_store import make_episode


def test_round_trip(store):
    opened = open_store(store)
    assert opened.num_episodes == 3 and opened.manifest["steps"] == 20
    assert set(opened.columns) == set(COLUMNS) - {"cloud"}
    assert opened.columns["episode_offsets"].tolist() == [0, 4, 14, 20]
    for name, column in opened.columns.items():
        assert isinstance(column, np.memmap) and not column.flags.writeable
        assert column.dtype.str == COLUMNS[name].dtype
        np.testing.assert_array_equal(np.load(store / f"{name}.npy"), column)
    for number, steps in enumerate((4, 10, 6)):
        truth, episode = make_episode(number, steps), opened.episode(number)
        for name in ("time", "position", "rotation", "gripper", "gripper_width"):
            np.testing.assert_array_equal(
                getattr(episode, name), getattr(truth, name).astype(COLUMNS[name].dtype)
            )
        assert (episode.instruction, episode.index) == (truth.instruction, truth.index)
        assert opened.keyframes(number).tolist() == [0, steps // 2, steps - 1]
    opened.verify()


def test_an_unfinished_store_does_not_appear(tmp_path):
    with pytest.raises(RuntimeError, match="finish was not called"):
        with StoreWriter(tmp_path / "store", with_cloud=False):
            pass
    with pytest.raises(KeyboardInterrupt):
        with StoreWriter(tmp_path / "store", with_cloud=True) as writer:
            writer.append(make_episode(0, 4, with_cloud=True), np.array([0, 3]))
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def edit_manifest(store, **changes):
    path = store / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store: (store / "manifest.json").unlink(), "is no trajectory store"),
        (lambda store: (store / "manifest.json").write_text("{"), "is not a store's manifest"),
        (lambda store: edit_manifest(store, schema_version=99), "has schema_version 99, this pro"),
        (lambda store: edit_manifest(store, columns={}), "lists no column 'episode_offsets'"),
        (lambda store: cut(store / "position.npy"), "position.npy is cut off"),
        (lambda store: (store / "time.npy").write_bytes(b"junk"), "time.npy is cut off or no"),
        (lambda store: (store / "time.npy").unlink(), "time.npy is missing"),
        (
            lambda store: np.save(store / "gripper.npy", np.zeros(20)),
            "gripper.npy holds float64(20,) where manifest.json says float32(20,)",
        ),
        (lambda store: (store / "episodes.jsonl").unlink(), "is damaged"),
    ],
)
def test_damaged_stores(store, damage, message):
    damage(store)
    with pytest.raises(UserError) as caught:
        open_store(store)
    assert message in str(caught.value) and "\n" not in str(caught.value)
