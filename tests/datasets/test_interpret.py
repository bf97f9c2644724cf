"""Every rotation convention against rotations built by hand in float64."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.datasets.card_format import Gripper, Position, Rotation
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import RejectedEpisode, align_hemispheres
from bridgeact_jax.datasets.interpret import (
    binarise,
    hold_changes,
    interpret_episode,
    raw_numbers,
    to_matrix,
    to_quaternion,
)

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


def test_scaled_and_turned_rotations():
    angles = np.random.default_rng(6).uniform(-1, 1, (STEPS, 3))
    truth = [elementary("z", c) @ elementary("y", b) @ elementary("x", a) for a, b, c in angles]
    hundreds = dataclasses.replace(rotation("euler", "extrinsic", "xyz", "deg"), scale=100.0)
    assert_rotations(hundreds, np.degrees(angles) / 100, truth)
    halves = dataclasses.replace(rotation("axis_angle"), scale=0.5)
    assert_rotations(halves, 2 * angles, map(rodrigues, angles))
    half_turn = (0.0, 1.0, 0.0, 0.0)
    recorded = np.array([np.diag([1.0, -1.0, -1.0]) @ matrix for matrix in truth])
    turned = dataclasses.replace(rotation("matrix", "row"), turned=half_turn)
    assert_rotations(turned, recorded.reshape(STEPS, 9), truth)
    wxyz = to_quaternion(rotation("matrix", "row"), recorded.reshape(STEPS, 9))
    quarter = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
    turned = dataclasses.replace(rotation("quaternion", "wxyz"), turned=quarter)
    assert_rotations(turned, wxyz, elementary("z", -math.pi / 2) @ recorded)


def homogeneous(side=4, steps=STEPS) -> np.ndarray:
    """(T, side, side) rotations, with positions where there is room for them."""
    rng = np.random.default_rng(3)
    full = np.tile(np.eye(side), (steps, 1, 1))
    full[:, :3, :3] = [rodrigues(vector) for vector in rng.uniform(-2, 2, (steps, 3))]
    if side == 4:
        full[:, :3, 3] = rng.uniform(-1, 1, (steps, 3))
    return full


def flattened(matrices: np.ndarray, order: str) -> np.ndarray:
    return np.array([matrix.flatten("C" if order == "row" else "F") for matrix in matrices])


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("order", ["row", "column"])
def test_matrix(order, side):
    matrices = homogeneous(side)
    values = flattened(matrices, order)
    assert_rotations(rotation("matrix", order), values, matrices[:, :3, :3])
    np.testing.assert_array_equal(to_matrix(order, values), matrices)


@pytest.mark.parametrize("order", ["row", "column"])
def test_the_order_of_a_matrix_is_detected(order):
    matrices = homogeneous()
    matrices[0, :3, 3] = 0.0  # one step at the origin fits both orders
    values = flattened(matrices, order)
    assert_rotations(rotation("matrix", "detect"), values, matrices[:, :3, :3])
    np.testing.assert_array_equal(to_matrix("detect", values), matrices)


def test_undecidable_matrices_are_rejected():
    matrices = homogeneous()
    with pytest.raises(RejectedEpisode, match="matrix is no homogeneous transform"):
        to_matrix("column", flattened(matrices, "row"))
    with pytest.raises(RejectedEpisode, match="matrix is no homogeneous transform"):
        to_matrix("detect", flattened(matrices + 1e-3, "row"))
    with pytest.raises(RejectedEpisode, match="matrix is no homogeneous transform"):
        to_matrix("detect", flattened(matrices, "row") * np.r_[0, np.ones(STEPS - 1)][:, None])
    matrices[:, :3, 3] = 0.0
    with pytest.raises(RejectedEpisode, match="may be row- or column-major"):
        to_matrix("detect", flattened(matrices, "row"))
    matrices[:, :3, :3] = np.diag([-1.0, 1.0, -1.0])  # reads the same both ways
    np.testing.assert_array_equal(to_matrix("detect", flattened(matrices, "row")), matrices)


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


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.3, 1.0]), min_size=1, max_size=40))
def test_changes_hold_until_the_next(commands):
    closing, opening = [value == 1.0 for value in commands], [value == -1.0 for value in commands]
    first = next((step for step, pair in enumerate(zip(closing, opening, strict=True)) if any(pair)
                  ), None)
    state = 1.0 if first is None or closing[first] else 0.0
    expected = []
    for close, open_ in zip(closing, opening, strict=True):
        state = 0.0 if close else 1.0 if open_ else state
        expected.append(state)
    fraction = (np.array(commands) - 1.0) / -2.0
    assert hold_changes(fraction, 0.25, 0.75).tolist() == expected


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


def interpret(card, columns):
    """The episode of `columns` under full keys that are the card's own."""
    keys = {table: f"steps/{column.key}" for table, column in card.columns().items()}
    return interpret_episode(card, keys, columns, 0)


def test_positions_and_rotations_of_transforms(toy):
    matrices = homogeneous(steps=12)
    for order in ("row", "column"):
        for claimed in (order, "detect"):
            place = {"key": "pose", "slice": slice(2, 18), "claim": "assumed", "note": ""}
            card = dataclasses.replace(
                load_card(toy[1]),
                position=Position(**place, scale=0.01, convention="matrix", order=claimed),
                rotation=Rotation(**place, convention="matrix", order=claimed),
            )
            scaled = matrices.copy()
            scaled[:, :3, 3] *= 100
            pose = np.concatenate([np.ones((12, 2)), flattened(scaled, order)], 1)
            episode = interpret(card, toy[2].columns(0) | {"steps/pose": pose})
            np.testing.assert_allclose(episode.position, matrices[:, :3, 3], atol=1e-6)
            for quaternion, matrix in zip(episode.rotation, matrices, strict=True):
                np.testing.assert_allclose(matrix_of(quaternion), matrix[:3, :3], atol=1e-6)


def test_yaw_only(toy):
    card = dataclasses.replace(
        load_card(toy[1]),
        rotation=Rotation("yaw", slice(None), "assumed", "", convention="euler",
                          order="extrinsic", axes="z", unit="deg"),
    )
    yaw = np.linspace(-170, 350, 12)
    episode = interpret(card, toy[2].columns(0) | {"steps/yaw": yaw})
    for quaternion, angle in zip(episode.rotation, np.radians(yaw), strict=True):
        np.testing.assert_allclose(matrix_of(quaternion), elementary("z", angle), atol=1e-6)
    assert (np.sum(episode.rotation[1:] * episode.rotation[:-1], axis=-1) > 0).all()
    assert card.recorded["rotation"] == "yaw"


def test_what_is_not_recorded_is_filled(toy):
    card = dataclasses.replace(
        load_card(toy[1]), rotation=None, gripper=None, gripper_width=None, instruction=None
    )
    episode = interpret(card, toy[2].columns(0))
    assert episode.rotation.dtype == episode.gripper.dtype == np.float32
    assert episode.rotation.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 12
    assert episode.gripper.tolist() == [1.0] * 12
    assert np.isnan(episode.gripper_width).all() and episode.instruction == ""


def test_positions_normalised_between_bounds(toy):
    card = load_card(toy[1])
    card = dataclasses.replace(
        card,
        position=Position("value", slice(1, 4), "documented", "", scale=0.1, low_key="low",
                          high_key="high"),
    )
    rng = np.random.default_rng(5)
    low = rng.uniform(-2, -1, (12, 5))
    high = rng.uniform(1, 2, (12, 5))
    truth = rng.uniform(-1, 1, (12, 5))
    columns = toy[2].columns(0) | {
        "steps/low": low, "steps/high": high, "steps/value": (truth - low) / (high - low)
    }
    np.testing.assert_allclose(interpret(card, columns).position, truth[:, 1:4] * 0.1, atol=1e-6)
    keys = {table: f"steps/{column.key}" for table, column in card.columns().items()}
    np.testing.assert_allclose(raw_numbers(card, keys, columns, "position"), truth[:, 1:4])
    columns["steps/high"][3, 1] = np.nan
    with pytest.raises(RejectedEpisode, match="position is not finite"):
        interpret(card, columns)


def change_gripper(**place) -> Gripper:
    return Gripper(**place, claim="assumed", note="", source="change", closed=1.0, open=-1.0,
                   thresholds=(0.25, 0.75))


def test_gripper_of_changes(toy):
    card = dataclasses.replace(
        load_card(toy[1]), gripper=change_gripper(key="change", slice=slice(None))
    )
    change = np.float32([0, 0, 1, 1, 0, 0.1, 0, -1, 0, 0, 1, 0])
    episode = interpret(card, toy[2].columns(0) | {"steps/change": change})
    assert episode.gripper.tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float64", "bfloat16"])
def test_numbers_of_any_kind(toy, dtype):
    import ml_dtypes

    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    card = load_card(toy[1])
    card = dataclasses.replace(
        card,
        gripper=dataclasses.replace(
            card.gripper, key="closed", slice=slice(None), closed=1.0, open=0.0
        ),
    )
    for shape in ((12,), (12, 1)):
        closed = np.array([0, 1] * 6).reshape(shape).astype(dtype)
        episode = interpret(card, toy[2].columns(0) | {"steps/closed": closed})
        assert episode.gripper.tolist() == [1.0, 0.0] * 6


@pytest.mark.parametrize("steps", [0, 1])
def test_too_few_steps_are_rejected(toy, steps):
    columns = {key: values[:steps] for key, values in toy[2].columns(0).items()}
    with pytest.raises(RejectedEpisode, match="fewer than 2 steps"):
        interpret(load_card(toy[1]), columns)


def test_two_steps_are_enough(toy):
    columns = {key: values[:2] for key, values in toy[2].columns(0).items()}
    assert len(interpret(load_card(toy[1]), columns)) == 2


def test_a_long_episode(toy):
    columns = toy[2].columns(1, steps=100_000)
    columns["steps/observation/state"][1::2, 3:7] *= -1
    episode = interpret(load_card(toy[1]), columns)
    assert len(episode) == 100_000
    np.testing.assert_allclose(episode.rotation[:, 0], np.cos(
        0.25 * np.linspace(0, 1, 100_000) + 0.1), atol=1e-6)
