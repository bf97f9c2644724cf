"""Every rotation convention against rotations built by hand in float64."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.datasets.card_format import Rotation
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import RejectedEpisode, align_hemispheres
from bridgeact_jax.datasets.interpret import binarise, interpret_episode, to_quaternion

STEPS = 20


def elementary(axis: str, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def matrix_of(quaternion) -> np.ndarray:
    """Rotation matrix of a wxyz quaternion, by i v j products written out."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew


def rotation(convention, order="", axes="", unit="rad") -> Rotation:
    return Rotation(
        "key", slice(None), "assumed", "", convention=convention, order=order, axes=axes, unit=unit
    )


def assert_rotations(card_rotation, values, matrices):
    quaternions = to_quaternion(card_rotation, values)
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=-1), 1.0, atol=1e-12)
    for quaternion, matrix in zip(quaternions, matrices, strict=True):
        np.testing.assert_allclose(matrix_of(quaternion), matrix, atol=1e-9)


@pytest.mark.parametrize("unit", ["rad", "deg"])
@pytest.mark.parametrize("order", ["extrinsic", "intrinsic"])
@pytest.mark.parametrize("axes", ["xyz", "zyx", "zxy", "yzx", "zyz", "xzx", "zy", "z"])
def test_euler(axes, order, unit):
    angles = np.random.default_rng(0).uniform(-3, 3, (STEPS, len(axes)))
    matrices = []
    for row in angles:
        matrix = np.eye(3)
        for axis, angle in zip(axes, row, strict=True):
            # fixed axes: each later turn acts from the left; moving axes: from the right
            turn = elementary(axis, angle)
            matrix = turn @ matrix if order == "extrinsic" else matrix @ turn
        matrices.append(matrix)
    values = np.degrees(angles) if unit == "deg" else angles
    assert_rotations(rotation("euler", order, axes, unit), values, matrices)


@pytest.mark.parametrize("order", ["wxyz", "xyzw"])
def test_quaternion(order):
    wxyz = np.random.default_rng(1).normal(size=(STEPS, 4))
    wxyz /= np.linalg.norm(wxyz, axis=-1, keepdims=True)
    values = wxyz if order == "wxyz" else wxyz[:, [1, 2, 3, 0]]
    assert_rotations(rotation("quaternion", order), values * 1.01, map(matrix_of, wxyz))


@pytest.mark.parametrize("unit", ["rad", "deg"])
def test_axis_angle(unit):
    vectors = np.random.default_rng(2).uniform(-2, 2, (STEPS, 3))
    values = np.degrees(vectors) if unit == "deg" else vectors
    assert_rotations(rotation("axis_angle", unit=unit), values, map(rodrigues, vectors))


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("order", ["row", "column"])
def test_matrix(order, side):
    vectors = np.random.default_rng(3).uniform(-2, 2, (STEPS, 3))
    matrices = [rodrigues(vector) for vector in vectors]
    values = []
    for matrix in matrices:
        full = np.eye(side)
        full[:3, :3] = matrix
        if side == 4:
            full[:3, 3] = 7.0, 8.0, 9.0
        values.append(full.flatten("C" if order == "row" else "F"))
    assert_rotations(rotation("matrix", order), np.array(values), matrices)


@pytest.mark.parametrize(
    ("card_rotation", "value", "reason"),
    [
        (rotation("quaternion", "wxyz"), [0, 0, 0, 0], "quaternion is not of unit length"),
        (rotation("quaternion", "wxyz"), [1, 1, 0, 0], "quaternion is not of unit length"),
        (rotation("matrix", "row"), [1, 0, 0, 0, 1, 0, 0, 0, -1], "matrix is no rotation"),
        (rotation("matrix", "row"), [0] * 9, "matrix is no rotation"),
        (rotation("matrix", "row"), [2, 0, 0, 0, 1, 0, 0, 0, 0.5], "matrix is no rotation"),
    ],
)
def test_what_is_no_rotation_is_rejected(card_rotation, value, reason):
    with pytest.raises(RejectedEpisode, match=reason):
        to_quaternion(card_rotation, np.array([value], float))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 0.5), st.floats(0.5, 1))
def test_hysteresis_equals_the_loop(values, low, high):
    state = float(values[0] > (low + high) / 2)
    expected = []
    for value in values:
        if value > high:
            state = 1.0
        elif value < low:
            state = 0.0
        expected.append(state)
    assert binarise(np.array(values), low, high).tolist() == expected


def test_hysteresis_does_not_reopen_while_holding():
    width = np.array([1.0, 0.8, 0.5, 0.45, 0.5, 0.55, 0.5, 0.9, 1.0])
    assert binarise(width, 0.4, 0.6).tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1]
    width[3] = 0.35
    assert binarise(width, 0.4, 0.6).tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1]


def test_hemispheres_are_aligned_and_rotations_kept():
    rng = np.random.default_rng(4)
    half = np.cumsum(rng.uniform(0, 0.3, 50))
    smooth = np.stack([np.cos(half), np.sin(half), 0 * half, 0 * half], 1)
    flipped = smooth * rng.choice([-1.0, 1.0], (50, 1))
    np.testing.assert_allclose(align_hemispheres(flipped) * np.sign(flipped[0, 0]), smooth)


def toy_columns(toy, **changed):
    columns = {
        key: values if isinstance(values, list) else values.copy()
        for key, values in toy.columns(0).items()
    }
    for key, (index, value) in changed.items():
        columns[{"state": "steps/observation/state", "action": "steps/action"}[key]][index] = value
    return columns


KEYS = {
    "position": "steps/observation/state",
    "rotation": "steps/observation/state",
    "gripper": "steps/action",
    "gripper_width": "steps/observation/state",
    "instruction": "steps/language_instruction",
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"state": ((3, 1), np.nan)}, "position is not finite"),
        ({"state": ((3, 4), np.inf)}, "rotation is not finite"),
        ({"state": ((3, slice(3, 7)), 0.0)}, "quaternion is not of unit length"),
        ({"action": ((0, 6), np.nan)}, "gripper is not finite"),
    ],
)
def test_unusable_episodes_are_rejected(toy, changed, reason):
    _, card, data = toy
    with pytest.raises(RejectedEpisode, match=reason):
        interpret_episode(load_card(card), KEYS, toy_columns(data, **changed), 0)


def test_too_short_and_ragged_episodes_are_rejected(toy):
    _, path, data = toy
    card = load_card(path)
    with pytest.raises(RejectedEpisode, match="fewer than 2 steps"):
        interpret_episode(card, KEYS, data.columns(0, steps=1), 0)
    columns = data.columns(0)
    columns["steps/action"] = columns["steps/action"][:-1]
    with pytest.raises(RejectedEpisode, match="columns differ in length"):
        interpret_episode(card, KEYS, columns, 0)


def test_width_scale_time_and_missing_columns(toy):
    _, path, data = toy
    card = load_card(path)
    card = dataclasses.replace(
        card,
        gripper_width=None,
        instruction=None,
        position=dataclasses.replace(card.position, scale=0.001),
        gripper=dataclasses.replace(
            card.gripper, source="width", key="w", slice=slice(7, 8), closed=0.0, open=0.08,
            thresholds=(0.4, 0.6),
        ),
        clock=dataclasses.replace(card.clock, hz=None, key="observation/time", scale=0.001),
    )
    columns = toy_columns(data)
    state = columns["steps/observation/state"]
    state[:, 7] = 0.08
    state[5:8, 7] = 0.03
    columns["steps/observation/time"] = 5000.0 + 200.0 * np.arange(12)
    keys = KEYS | {"gripper": KEYS["position"], "clock": "steps/observation/time"}
    episode = interpret_episode(card, keys, columns, 7)
    np.testing.assert_allclose(episode.time, 0.2 * np.arange(12), atol=1e-12)
    np.testing.assert_allclose(episode.position, state[:, :3] / 1000, rtol=1e-6)
    assert episode.gripper.tolist() == [1.0] * 5 + [0.0] * 3 + [1.0] * 4
    assert np.isnan(episode.gripper_width).all()
    assert episode.instruction == "" and episode.index == 7
    columns["steps/observation/time"][4] = 0.0
    with pytest.raises(RejectedEpisode, match="time does not increase"):
        interpret_episode(card, keys, columns, 7)
