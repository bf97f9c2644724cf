"""Every Open X-Embodiment dataset, as a tiny copy with planted poses, through its card."""

import os

import numpy as np
import pytest

from bridgeact_jax.datasets.cards import find_card
from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.datasets.plausibility import SHORT
from bridgeact_jax.datasets.store import open_store
from bridgeact_jax.errors import UserError
from tests.datasets import oxe_copies, oxe_poses

LENGTHS = (7, 2, 12)
LAYOUTS = oxe_copies.layouts()
NAMES = sorted(LAYOUTS)
CONVERTED = [name for name in NAMES if "refused" not in LAYOUTS[name]]
REFUSED = [name for name in NAMES if "refused" in LAYOUTS[name]]


def write(directory, name):
    motions = [oxe_poses.plant(number, steps) for number, steps in enumerate(LENGTHS)]
    file_format = ("tfrecord", "array_record")[NAMES.index(name) % 2]
    return oxe_copies.write_copy(directory, name, motions, file_format), motions


def recorded(layout: dict) -> dict[str, object]:
    rotations = layout.get("rotation", []) + layout.get("pose", [])
    yaw = any(entry.endswith("yaw") for entry in rotations)
    return {
        "rotation": ("yaw" if yaw else "full") if rotations else "none",
        "gripper": "gripper" in layout,
    }


@pytest.mark.parametrize("name", CONVERTED)
def test_planted_motions_come_back(name, tmp_path):
    directory, motions = write(tmp_path / "rlds", name)
    manifest = convert_dataset(directory, tmp_path / "store", card=LAYOUTS[name]["card"])
    assert manifest["rejected_episodes"] == []
    assert manifest["flagged"] == {SHORT: 2}  # nothing else is odd about plausible motions
    assert manifest["rotation_check"]["answer"] != "contradicts"
    wanted = recorded(LAYOUTS[name])
    assert {key: manifest["recorded"][key] for key in wanted} == wanted
    store = open_store(tmp_path / "store")
    assert store.num_episodes == len(motions)
    for number, motion in enumerate(motions):
        episode = store.episode(number)
        np.testing.assert_allclose(episode.position, motion.position, atol=1e-5, rtol=0)
        if wanted["rotation"] != "none":
            truth = motion.quaternion
            if wanted["rotation"] == "yaw":
                truth = oxe_poses.turn_quaternion("z", motion.yaw)
            assert oxe_poses.angle_between(truth, episode.rotation.astype(float)).max() <= 1e-5
        if wanted["gripper"]:
            np.testing.assert_array_equal(episode.gripper, motion.gripper)
        if manifest["recorded"]["gripper_width"]:
            closed, opened = oxe_copies.WIDTHS
            choices = [closed + (opened - closed) * motion.gripper, motion.gripper]
            assert any(
                np.allclose(episode.gripper_width, choice, atol=1e-5) for choice in choices
            )
        assert episode.time[0] == 0
        periods = np.diff(episode.time)
        assert (periods > 0).all()
        np.testing.assert_allclose(periods, periods[0], rtol=1e-4)
        assert episode.instruction == oxe_copies.instruction(number)


@pytest.mark.parametrize("dataset", REFUSED)
def test_datasets_without_a_pose_are_refused(dataset, tmp_path):
    directory, _ = write(tmp_path / "rlds", dataset)
    reason = find_card(dataset).refused
    with pytest.raises(UserError) as error:
        convert_dataset(directory, tmp_path / "store")
    assert reason and reason in str(error.value)
    assert os.listdir(tmp_path) == ["rlds"]


def test_the_tables_agree():
    """Each dataset has a layout, and what a layout names is there and wide enough."""
    assert {table["dataset"] for table in LAYOUTS.values()} == set(oxe_copies.specs())
    assert len(oxe_copies.specs()) == 61
    for name, table in LAYOUTS.items():
        columns = {spec.key: spec for spec in oxe_copies.specs()[table["dataset"]]}
        for key, where, values in oxe_copies.planted(table, oxe_poses.plant(0, 4), 0):
            size = int(np.prod(columns[key].shape))
            assert len(range(size)[where]) == values.shape[-1], f"{name} {key}"
            assert (where.stop or 0) <= size, f"{name} {key}"


@pytest.mark.parametrize("axes", ["xyz", "zxy", "yxz", "zyx", "ZYX", "XYZ"])
def test_planted_angles_rebuild_the_rotation(axes):
    motion = oxe_poses.plant(1, 9)
    turns = [
        oxe_poses.turn_matrix(axis, angle)
        for axis, angle in zip(axes.lower(), oxe_poses.euler(motion.matrix, axes).T, strict=True)
    ]
    first, second, third = turns if axes.isupper() else turns[::-1]
    np.testing.assert_allclose(first @ second @ third, motion.matrix, atol=1e-12)


def test_planted_quaternions_are_the_planted_matrices():
    motion = oxe_poses.plant(2, 9)
    w, v = motion.quaternion[:, 0], motion.quaternion[:, 1:]
    vectors = np.random.default_rng(0).normal(size=(9, 3))
    turned = vectors + 2 * np.cross(v, np.cross(v, vectors) + w[:, None] * vectors)
    np.testing.assert_allclose(turned, np.einsum("tij,tj->ti", motion.matrix, vectors), atol=1e-12)
    np.testing.assert_allclose(
        oxe_poses.homogeneous(motion, "row").reshape(-1, 4, 4) @ np.array([0, 0, 0, 1.0]),
        np.c_[motion.position, np.ones(9)],
    )


def test_a_wrong_claim_does_not_pass(tmp_path):
    """The comparison has teeth: a quaternion read in the other order is far off."""
    dataset = "maniskill_dataset_converted_externally_to_rlds"
    directory, motions = write(tmp_path / "rlds", dataset)
    card = find_card(dataset)
    text = card.path.read_text()
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace('order = "wxyz"', 'order = "xyzw"'))
    convert_dataset(directory, tmp_path / "store", card=wrong)
    episode = open_store(tmp_path / "store").episode(0)
    far = oxe_poses.angle_between(motions[0].quaternion, episode.rotation.astype(float))
    assert far.min() > 0.1
