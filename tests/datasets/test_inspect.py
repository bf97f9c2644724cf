"""What `bridgeact inspect` prints and draws, on planted episodes."""

import json

import numpy as np
import pytest

from bridgeact_jax.cli import main
from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.datasets.inspect import describe_store, guidance_error, problems
from bridgeact_jax.datasets.store import StoreWriter, open_store
from tests.datasets.planted_store import FACTS


def test_figures(store):
    figures = describe_store(open_store(store))
    assert figures["steps"].tolist() == [4, 10, 6]
    np.testing.assert_allclose(figures["hz"], 5.0)
    np.testing.assert_allclose(figures["speed"], 0.5, rtol=1e-5)
    turned = np.concatenate([np.full(steps - 1, 1.0 / (steps - 1)) for steps in (4, 10, 6)])
    np.testing.assert_allclose(figures["turning"], 5 * turned, rtol=1e-4)
    assert figures["changes"].tolist() == [1, 1, 1]  # the jump between episodes is none
    assert figures["open"] == 0.5 and figures["repeated"] == 0.0
    assert figures["nan"]["gripper_width"] == 20 and figures["nan"]["position"] == 0


def test_guidance_error_is_the_distance_to_the_curve(tmp_path):
    """On a line between its ends the curve is the chord: a frame 30 mm aside is missed by that."""
    bulge = np.zeros(21)
    bulge[10] = 0.03
    with StoreWriter(tmp_path / "store", with_cloud=False) as writer:
        for aside in (0 * bulge, bulge):
            line = np.linspace(0, 0.4, 21)
            episode = Episode(
                time=np.arange(21) / 10,
                position=np.stack([line, aside, 0 * line], 1),
                rotation=np.tile([1.0, 0, 0, 0], (21, 1)),
                gripper=np.ones(21),
                gripper_width=np.full(21, np.nan),
            )
            writer.append(episode, np.array([0, 20]))
        writer.finish(**FACTS)
    error = guidance_error(open_store(tmp_path / "store"))
    assert error.episodes.tolist() == [0, 1]
    np.testing.assert_allclose(error.worst, [0, 0.03], atol=1e-6)
    frames = np.linspace(0, 20, 128).astype(int)
    np.testing.assert_allclose(error.mean, [0, 0.03 * np.mean(frames == 10)], atol=1e-6)


def test_problems_are_those_of_the_manifest():
    manifest = {
        "recorded": {"rotation": "yaw", "gripper": False, "gripper_width": True},
        "rotation_check": {
            "answer": "contradicts",
            "reason": "xyzw fits better",
            "claim": "wxyz",
            "scores": {
                "wxyz": {"rotation_action": 0.1, "tool_axis": None}, "xyzw": {"tool_axis": None}
            },
        },
        "flagged": {"the gripper never changes": 10, "slow": 1},
        "flagged_episodes": [
            {"index": 2 * i, "flags": ["the gripper never changes"] + ["slow"] * (i == 7)}
            for i in range(10)
        ],
        "rejected": {"a jump": 1},
        "rejected_episodes": [{"index": 3, "reason": "a jump"}],
    }
    assert [" ".join(line.split()) for line in problems(manifest)] == [
        "not recorded gripper",
        "not recorded rotation but its yaw",
        "rotation check contradicts: xyzw fits better",
        "wxyz (the card's): rotation_action 0.100",
        "xyzw: no evidence",
        "flagged episodes 10",
        "10: the gripper never changes (in 0, 2, 4, 6, 8, 10, 12, 14, ...)",
        "1: slow (in 14)",
        "rejected episodes 1",
        "1: a jump (in 3)",
    ]


@pytest.mark.slow
def test_inspect_command(store, tmp_path, capsys):
    assert main(["bridgeact", "inspect", f"--store={store}", f"--out={tmp_path}/pictures"]) == 0
    out = capsys.readouterr().out
    assert "3 episodes, 20 steps; toy 1.0.0 (train), card toy" in out
    assert "rate               5 .. 5, median 5 Hz" in out
    assert "guidance error     mean 0.0 mm, max 0.0 mm" in out
    assert "1: fewer than 2 steps" in out
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "density.png", "episodes.png", "histograms.png", "inspection.txt", "paths.png"
    ]
    assert main(["bridgeact", "inspect", f"--store={tmp_path}"]) == 1
    assert "is no trajectory store" in capsys.readouterr().err


@pytest.mark.slow
def test_a_store_without_rotation_and_gripper_is_drawn(store, tmp_path):
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["recorded"] = {"rotation": "none", "gripper": False, "gripper_width": False}
    path.write_text(json.dumps(manifest))
    assert main(["bridgeact", "inspect", f"--store={store}", f"--out={tmp_path}/pictures"]) == 0
    assert "not recorded       rotation" in (tmp_path / "pictures/inspection.txt").read_text()


def test_inspect_verifies_checksums(store, capsys):
    content = bytearray((store / "position.npy").read_bytes())
    content[-1] ^= 1
    (store / "position.npy").write_bytes(content)
    assert main(["bridgeact", "inspect", f"--store={store}"]) == 1
    assert "position.npy differs from the checksum" in capsys.readouterr().err
