"""RLDS -> store, whole and with bad input, through the function and the command."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest

from bridgeact_jax.cli import main
from bridgeact_jax.datasets.cards import card_paths
from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.datasets.rlds_writer import Feature, write_rlds
from bridgeact_jax.datasets.store import open_store
from bridgeact_jax.errors import nearest


def convert(capsys, directory, out, *flags) -> tuple[int, str, str]:
    flags = [f"--rlds={directory}", f"--out={out}", "--workers=1", *flags]
    status = main(["bridgeact", "convert", *flags])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def fails(capsys, directory, out, *flags, keeps_parts=False) -> tuple[int, str]:
    """Exit status and the error line; nothing may be written but finished parts."""
    partial = pathlib.Path(f"{out}.partial")
    before = {*pathlib.Path(out).parent.iterdir(), *([partial] if keeps_parts else [])}
    status, _, err = convert(capsys, directory, out, *flags)
    assert set(pathlib.Path(out).parent.iterdir()) == before
    assert (f"finished parts are kept in {partial}" in err) == keeps_parts
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return status, lines[0]


def test_planted_poses_come_back(toy, tmp_path, capsys):
    directory, card, data = toy
    status, out, _ = convert(capsys, directory, tmp_path / "store", f"--card={card}")
    assert status == 0
    assert "3 episodes, 36 steps, 0 rejected; card toy" in out
    assert "positions 0.300 0.000 0.150 .. 0.400 0.040 0.200 m" in out
    store = open_store(tmp_path / "store")
    store.verify()
    assert store.num_episodes == 3
    for number in range(3):
        truth = data.columns(number)
        state, action = truth["steps/observation/state"], truth["steps/action"]
        episode = store.episode(number)
        np.testing.assert_array_equal(episode.position, state[:, :3].astype(np.float32))
        np.testing.assert_allclose(episode.rotation, state[:, 3:7], atol=1e-6)
        np.testing.assert_array_equal(episode.gripper, (1 - action[:, 6]) / 2)
        np.testing.assert_allclose(episode.gripper_width, 0.5, rtol=1e-6)
        np.testing.assert_allclose(episode.time, np.arange(12) / 10)
        assert episode.instruction == f"move {number}" and episode.index == number
        assert episode.cloud is None
        keyframes = store.keyframes(number).tolist()
        assert keyframes[0] == 0 and keyframes[-1] == 11 and 6 in keyframes  # closes at row 6
        assert keyframes == sorted(set(keyframes))


def test_manifest(toy, tmp_path):
    directory, card, data = toy
    manifest = convert_dataset(directory, tmp_path / "store", card=card)
    assert manifest == json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert (manifest["episodes"], manifest["steps"]) == (3, 36)
    assert manifest["source"] == {
        "dataset": "toy",
        "version": "1.0.0",
        "split": "train",
        "files": ["toy-train.tfrecord-00000-of-00001"],
    }
    position = np.concatenate(
        [data.columns(number)["steps/observation/state"][:, :3] for number in range(3)]
    )
    stats = manifest["stats"]["position"]
    np.testing.assert_allclose(stats["mean"], position.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["std"], position.std(0), rtol=1e-5)
    np.testing.assert_allclose(stats["q01"], np.quantile(position, 0.01, axis=0), atol=1e-7)
    np.testing.assert_allclose(stats["max"], position.max(0), rtol=1e-6)


def test_odd_episodes_are_kept_and_named(rlds, toy, tmp_path, capsys):
    _, card, data = toy
    episodes = [data.columns(number, steps=5 if number == 2 else 12) for number in range(4)]
    episodes[3]["steps/action"][:, 6] = 1.0
    rlds.write(episodes, data.shapes)
    status, out, _ = convert(capsys, rlds.directory, tmp_path / "store", f"--card={card}")
    assert status == 0
    manifest = open_store(tmp_path / "store").manifest
    assert manifest["episodes"] == 4
    assert manifest["flagged"] == {"fewer than 10 steps": 1, "the gripper never changes": 1}
    assert manifest["flagged_episodes"] == [
        {"index": 2, "flags": ["fewer than 10 steps"]},
        {"index": 3, "flags": ["the gripper never changes"]},
    ]
    assert manifest["recorded"] == {"rotation": "full", "gripper": True, "gripper_width": True}
    lines = out.splitlines()
    assert "flagged 1: fewer than 10 steps" in lines
    check = manifest["rotation_check"]
    assert lines[-1] == f"rotation convention: {check['answer']} ({check['reason']})"


def test_converting_twice_gives_the_same_bytes(toy, tmp_path):
    directory, card, _ = toy
    for name in ("a", "b"):
        convert_dataset(directory, tmp_path / name, card=card)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_bad_episodes_are_left_out_and_named(rlds, toy, tmp_path, capsys):
    _, card, data = toy
    episodes = [data.columns(number) for number in range(6)]
    episodes[1]["steps/observation/state"][3, 0] = np.nan
    episodes[2] = data.columns(2, steps=1)
    episodes[3]["steps/observation/state"][:, 3:7] *= 2
    del episodes[4]["steps/action"]
    rlds.write(episodes, data.shapes, shards=2)
    flags = (f"--card={card}", "--max_rejected=4")
    status, out, _ = convert(capsys, rlds.directory, tmp_path / "store", *flags)
    assert status == 0
    assert "2 episodes, 24 steps, 4 rejected" in out
    assert "rejected 1: fewer than 2 steps" in out
    store = open_store(tmp_path / "store")
    assert store.manifest["rejected_episodes"] == [
        {"index": 1, "reason": "position is not finite"},
        {"index": 2, "reason": "fewer than 2 steps"},
        {"index": 3, "reason": "quaternion is not of unit length"},
        {"index": 4, "reason": "malformed record: column steps/action is missing"},
    ]
    assert store.manifest["rejected"]["position is not finite"] == 1
    assert [store.episode(number).index for number in range(2)] == [0, 5]
    assert store.episode(1).instruction == "move 5"


def test_nothing_left_is_an_error(rlds, toy, tmp_path, capsys):
    _, card, data = toy
    rlds.write([data.columns(0, steps=1)] * 2, data.shapes)
    status, error = fails(capsys, rlds.directory, tmp_path / "store", f"--card={card}")
    assert status == 1
    assert "all 2 episodes were rejected: fewer than 2 steps (2); check the conventions" in error


def test_zlib_columns_are_inflated(rlds, toy, tmp_path):
    _, card, data = toy
    shapes = data.shapes | {"observation/state": ("float32", (8,), "zlib")}
    episode = data.columns(1)
    state = episode["steps/observation/state"].astype(np.float32)
    episode["steps/observation/state"] = [zlib.compress(row.tobytes()) for row in state]
    short = data.columns(2)
    short["steps/observation/state"] = [zlib.compress(row.tobytes()[4:]) for row in state]
    rlds.write([episode, short], shapes)
    manifest = convert_dataset(rlds.directory, tmp_path / "store", card=card)
    np.testing.assert_array_equal(open_store(tmp_path / "store").episode(0).position, state[:, :3])
    assert list(manifest["rejected"].values()) == [1]
    assert "not 32 bytes" in manifest["rejected_episodes"][0]["reason"]


DEMONSTRATIONS = {
    "steps": {
        "observation": {
            "ee_position": Feature("float32", (3,)),
            "ee_rotation": Feature("float32", (4,)),
            "gripper_width": Feature("float32"),
            "cloud": Feature("float16", (2048, 3)),
        },
        "action": Feature("float32", (8,)),
        "language_instruction": Feature("text"),
    }
}


def write_demonstrations(path, episodes=3, steps=10):
    """Returns the clouds written, (episodes, steps, 2048, 3)."""
    clouds = np.random.default_rng(0).normal(size=(episodes, steps, 2048, 3)).astype(np.float16)

    def episode(number):
        return {
            "steps": [
                {
                    "observation": {
                        "ee_position": [0.01 * step, 0.1, 0.2],
                        "ee_rotation": [0.0, 1.0, 0.0, 0.0],
                        "gripper_width": 0.75,
                        "cloud": clouds[number, step],
                    },
                    "action": [9.0] * 7 + [float(step < 5)],
                    "language_instruction": "lift the cube",
                }
                for step in range(steps)
            ]
        }

    write_rlds(path, "demonstrations", map(episode, range(episodes)), DEMONSTRATIONS)
    return clouds


def test_demonstrations_find_their_card_and_keep_their_clouds(tmp_path):
    clouds = write_demonstrations(tmp_path / "rlds")
    manifest = convert_dataset(tmp_path / "rlds", tmp_path / "store")
    assert manifest["card"] == "demonstrations" and manifest["base_z_up"] is True
    assert "approach" in manifest["tool_frame"]
    store = open_store(tmp_path / "store")
    assert isinstance(store.columns["cloud"], np.memmap)
    np.testing.assert_array_equal(store.columns["cloud"], clouds.reshape(-1, 2048, 3))
    episode = store.episode(2)
    np.testing.assert_array_equal(episode.cloud, clouds[2])
    assert episode.gripper.tolist() == [1.0] * 5 + [0.0] * 5
    np.testing.assert_allclose(episode.gripper_width, 0.75)
    np.testing.assert_allclose(episode.position[:, 0], 0.01 * np.arange(10), rtol=1e-6)


def test_converting_imports_neither_tensorflow_nor_tensorflow_datasets(tmp_path):
    write_demonstrations(tmp_path / "rlds", episodes=1)
    program = (
        "import sys; from bridgeact_jax.cli import main; "
        f"status = main(['bridgeact', 'convert', '--rlds={tmp_path}/rlds', "
        f"'--out={tmp_path}/store']); "
        "print(status, [name for name in sys.modules if name.startswith('tensorflow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'key = "observation/state"',
            'key = "observation/stat"',
            "[position] key 'observation/stat' is not in {directory}: did you mean "
            "'observation/state'? (columns: action, language_instruction, observation/state)",
        ),
        (
            "slice = [3, 7]",
            "slice = [3, 6]",
            "[rotation] key 'observation/state' has 8 numbers a step, of which the slice takes 3; "
            "4 would be right",
        ),
        (
            "slice = [6, 7]",
            "slice = [6, 9]",
            "[gripper] key 'action' has 7 numbers a step, and the slice reaches 9; "
            "1 would be right",
        ),
        (
            'key = "observation/state"\nslice = [0, 3]',
            'key = "action"',
            "[position] key 'action' has 7 numbers a step; 3 would be right",
        ),
        (
            'key = "observation/state"\nslice = [0, 3]',
            'key = "language_instruction"',
            "[position] key 'language_instruction' holds text, not numbers",
        ),
        (
            'key = "language_instruction"',
            'key = "action"',
            "[instruction] key 'action' holds float32, not text",
        ),
    ],
)
def test_cards_that_do_not_fit_the_dataset(toy, tmp_path, capsys, old, new, message):
    directory, card, data = toy
    assert old in data.card_text
    card.write_text(data.card_text.replace(old, new, 1))
    status, error = fails(capsys, directory, tmp_path / "store", f"--card={card}")
    assert status == 1
    assert f"card {card}: " + message.format(directory=directory) in error


def test_wrong_command_lines(toy, tmp_path, capsys):
    directory, card, _ = toy
    out = tmp_path / "store"
    assert fails(capsys, directory, out) == (
        2,
        f"error: no card lists the dataset 'toy' ({directory}); give --card: "
        + nearest("toy", card_paths()),
    )
    assert fails(capsys, directory, out, "--card=bridg") == (
        2, "error: unknown card 'bridg': did you mean 'bridge'?"
    )
    assert fails(capsys, directory, out, f"--card={card}", "--split=trian") == (
        2, f"error: {directory}: unknown split 'trian': did you mean 'train'?"
    )
    assert fails(capsys, directory, out, f"--card={card}", "--split=val") == (
        1, f"error: {directory}: the split 'val' is empty: choose from train"
    )
    assert main(["bridgeact", "convert", f"--rlds={directory}"]) == 2
    assert "--out is required" in capsys.readouterr().err


def test_folders_that_are_no_dataset(toy, tmp_path, capsys):
    directory, card, _ = toy
    out = tmp_path / "store"
    status, error = fails(capsys, tmp_path, out, f"--card={card}")
    assert status == 1
    assert error == (
        f"error: {tmp_path}: no RLDS dataset (no dataset_info.json): did you mean {directory}?"
    )
    status, error = fails(capsys, tmp_path / "absent", out, f"--card={card}")
    assert status == 1 and "absent: no such folder" in error
    (directory / "features.json").write_text('{"pythonClassName": "none"}')
    status, error = fails(capsys, directory, out, f"--card={card}")
    assert status == 1 and "features.json has no 'steps'" in error
    (directory / "features.json").write_text("{")
    status, error = fails(capsys, directory, out, f"--card={card}")
    assert status == 1 and "cannot read" in error and "features.json" in error
    (directory / "features.json").write_text('{"featuresDict": {"features": {"steps": {"tensor": 1')
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "parquet"}))
    (directory / "features.json").write_text("{}")
    status, error = fails(capsys, directory, out, f"--card={card}")
    assert status == 1 and "file format 'parquet' is not read here" in error


def test_damaged_and_missing_shards(rlds, toy, tmp_path, capsys):
    _, card, data = toy
    rlds.write([data.columns(number) for number in range(4)], data.shapes, shards=2)
    out, flag = tmp_path / "store", f"--card={card}"
    shard = rlds.directory / "toy-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    second = 12 + int.from_bytes(whole[:8], "little") + 4

    shard.write_bytes(whole[:-7])
    status, error = fails(capsys, rlds.directory, out, flag, keeps_parts=True)
    assert status == 1 and error.startswith(
        f"error: {shard}: record 1 at byte {second} is cut off: the file is damaged"
    )
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    status, error = fails(capsys, rlds.directory, out, flag, keeps_parts=True)
    assert status == 1
    assert f"{shard}: record 0 at byte 0: the checksum of its data does not match" in error
    shard.write_bytes(whole[:second])
    status, error = fails(capsys, rlds.directory, out, flag, keeps_parts=True)
    assert status == 1
    assert f"{shard} holds 1 episodes where dataset_info.json says 2: fetch it again" in error
    shutil.rmtree(f"{out}.partial")
    shard.unlink()
    status, error = fails(capsys, rlds.directory, out, flag)
    assert status == 1
    assert "1 of 2 shards of the split 'train' are missing, the first is " + shard.name in error
    shard.with_name("toy-train.tfrecord-00001").write_bytes(whole)  # an older naming
    assert convert_dataset(rlds.directory, out, card=card)["episodes"] == 4


def test_existing_output(toy, tmp_path, capsys):
    directory, card, _ = toy
    out, flag = tmp_path / "store", f"--card={card}"
    assert convert(capsys, directory, out, flag)[0] == 0
    status, error = fails(capsys, directory, out, flag)
    assert status == 1 and f"{out} exists: choose another path, or overwrite it" in error
    assert convert(capsys, directory, out, flag, "--overwrite")[0] == 0
    other = tmp_path / "letters"
    other.mkdir()
    (other / "a").write_text("keep")
    status, error = fails(capsys, directory, other, flag, "--overwrite")
    assert status == 1 and "holds no manifest.json: choose another path" in error
    assert (other / "a").read_text() == "keep"


def test_a_failed_overwrite_keeps_the_old_store(rlds, toy, tmp_path, capsys):
    directory, card, data = toy
    out = tmp_path / "store"
    convert_dataset(directory, out, card=card)
    rlds.write([data.columns(0, steps=1)], data.shapes)
    assert fails(capsys, directory, out, f"--card={card}", "--overwrite")[0] == 1
    assert open_store(out).num_episodes == 3


def test_real_bridge_sample(tmp_path, capsys):
    if "BRIDGEACT_TEST_DATA" not in os.environ:
        pytest.skip("BRIDGEACT_TEST_DATA names no folder with bridge_sample/1.0.0")
    directory = pathlib.Path(os.environ["BRIDGEACT_TEST_DATA"], "bridge_sample", "1.0.0")
    status, out, _ = convert(capsys, directory, tmp_path / "store", "--card=bridge")
    assert status == 0
    assert "25 episodes, 250 steps, 0 rejected" in out
    store = open_store(tmp_path / "store")
    stats = store.manifest["stats"]["position"]
    np.testing.assert_allclose(stats["min"], [0.206, -0.104, 0.060], atol=6e-4)
    np.testing.assert_allclose(stats["max"], [0.358, 0.122, 0.217], atol=6e-4)
    assert (np.diff(store.columns["episode_offsets"]) == 10).all()
    assert store.episode(24).instruction == "put carrot on plate"
    np.testing.assert_allclose(np.linalg.norm(store.columns["rotation"], axis=1), 1, atol=1e-6)
