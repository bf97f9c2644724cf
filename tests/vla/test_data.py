"""Folders as the command writes them, read again by what trains on them."""

import json
import shutil

import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.vla import tokenizer
from bridgeact_jax.vla.data import write_episodes, write_imagetext
from bridgeact_jax.vla.folders import read_imagetext, read_robot
from bridgeact_jax.vla.imagetext import GROUPS, TESTED, sample
from bridgeact_jax.vla.reasoning import parse

needs_graphics = pytest.mark.skipif(can_render() is not None, reason="no graphics library")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "data"
    counts = write_imagetext(out, len(GROUPS) + 2, seed=3)
    assert list(counts) == list(GROUPS) and sum(counts.values()) == len(GROUPS) + 2
    return out


def test_imagetext_round_trip(drawn):
    data = read_imagetext(drawn)
    assert data.manifest["kind"] == "imagetext" and data.manifest["seed"] == 3
    assert sum(data.manifest["counts"].values()) == len(data.pictures) == len(GROUPS) + 2
    first = sample("number", 1, 3)  # the second of its group comes after one of each
    np.testing.assert_array_equal(data.pictures[len(GROUPS)], first.picture)
    assert data.questions[len(GROUPS)] == first.question
    assert data.answers[len(GROUPS)] == first.answer


def test_the_knowledge_test_shares_no_picture_with_training(drawn, tmp_path):
    counts = write_imagetext(tmp_path / "test", 13, test=True, seed=3)
    assert list(counts) == list(TESTED)
    test, training = read_imagetext(tmp_path / "test"), read_imagetext(drawn)
    assert test.manifest["options"]["kind"] == "knowledge"
    pictures = {picture.tobytes() for picture in training.pictures}
    assert not any(picture.tobytes() in pictures for picture in test.pictures)
    contents = [
        {json.loads(line)["content"] for line in (folder / "samples.jsonl").open()}
        for folder in (drawn, tmp_path / "test")
    ]
    assert not contents[0] & contents[1]


@pytest.mark.slow
def test_workers_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("bridgeact_jax.vla.data.AT_ONCE", 3)
    for workers in (1, 2):
        write_imagetext(tmp_path / str(workers), 14, workers=workers)
    for name in ("pictures.npy", "samples.jsonl", "manifest.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.fixture
def no_pictures(monkeypatch):
    """Episodes without graphics: each picture holds the tool's height, in mm."""

    def front(env):
        return np.full((64, 96, 3), min(round(1000 * env.world.tool[2]), 255), np.uint8)

    monkeypatch.setattr(Environment, "front", front)


@pytest.mark.parametrize("kind, split", [("math", "train"), ("toy", "open")])
def test_episodes_round_trip(kind, split, no_pictures, tmp_path):
    counts = write_episodes(tmp_path / "data", kind, 2, split=split, seed=1)
    data = read_robot(tmp_path / "data")
    assert counts == data.manifest["counts"] and counts["episodes"] == len(data.episodes) == 2
    assert counts["frames"] == len(data.pictures) == sum(one["length"] for one in data.episodes)
    assert [one["first"] for one in data.episodes] == [0, data.episodes[0]["length"]]
    heights = np.clip(np.round(1000 * data.position[:, 2]), 0, 255)
    assert np.abs(data.pictures[:, 0, 0, 0] - heights).max() <= 1
    np.testing.assert_allclose(np.linalg.norm(data.rotation, axis=1), 1, atol=1e-5)
    assert set(np.unique(data.gripper)) == {0.0, 1.0} and data.gripper_width.max() <= 1
    for episode in data.episodes:
        words = parse(episode["reasoning"])
        assert episode["split"] == split and len(words.places) == (1 if kind == "math" else 2)
        tokenizer.encode(episode["instruction"])
        rows = slice(episode["first"], episode["first"] + episode["length"])
        assert data.gripper[rows][0] == 1 and data.gripper_width[rows][0] > 0.95
        assert np.linalg.norm(np.diff(data.position[rows], axis=0), axis=1).max() < 0.04


@needs_graphics
def test_pictures_show_the_hand_where_it_is(tmp_path):
    write_episodes(tmp_path / "data", "math", 1)
    data = read_robot(tmp_path / "data")
    moved = np.abs(np.diff(data.pictures.astype(int), axis=0)).max(axis=(1, 2, 3)) > 60
    assert moved.mean() > 0.4 and data.pictures[0].std() > 20


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    def broken(group, number, seed, *, test):
        raise RuntimeError("killed")

    monkeypatch.setattr("bridgeact_jax.vla.data.sample", broken)
    with pytest.raises(RuntimeError):
        write_imagetext(tmp_path / "data", 3)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept(drawn):
    with pytest.raises(UserError, match="--overwrite"):
        write_imagetext(drawn, 1)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "pictures.npy").unlink(), "pictures.npy"),
        (lambda folder: (folder / "manifest.json").unlink(), "vla-data"),
        (lambda folder: np.save(folder / "pictures.npy", np.zeros((14, 8, 8, 3), np.uint8)), "64"),
        (lambda folder: (folder / "samples.jsonl").write_text("{}\n"), "question"),
        (lambda folder: (folder / "samples.jsonl").write_text(""), "0 samples"),
    ],
)
def test_a_damaged_folder_is_complained_of(spoil, message, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "data")
    spoil(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        read_imagetext(tmp_path / "data")


def test_a_folder_of_the_other_kind(drawn):
    with pytest.raises(UserError, match="'imagetext'"):
        read_robot(drawn)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--kind=math", "--samples=3"], "takes --episodes=N"),
        (["--kind=imagetext"], "takes --samples=N"),
        (["--kind=imagetext", "--samples=3", "--split=open"], "no --split"),
        (["--kind=maths", "--episodes=3"], "math"),
        (["--kind=toy", "--episodes=0"], "episodes"),
        (["--kind=toy", "--episodes=1", "--split=opne"], "open"),
    ],
)
def test_wrong_flags(flags, message, tmp_path, capsys):
    assert cli.main(["bridgeact", "vla-data", f"--out={tmp_path}/x", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
