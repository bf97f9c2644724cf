"""Rotations and transforms built by hand in float64."""

import math

import numpy as np

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
