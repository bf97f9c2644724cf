"""Every rotation convention against rotations built by hand in float64."""

import dataclasses
import math

import numpy as np
import pytest

from bridgeact_jax.datasets.card_format import Rotation
from bridgeact_jax.datasets.episode import RejectedEpisode
from bridgeact_jax.datasets.interpret import to_matrix, to_quaternion
from tests.datasets.by_hand import (
    STEPS,
    elementary,
    flattened,
    homogeneous,
    matrix_of,
    rodrigues,
)


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
