"""Planted motions and the raw columns they make in each convention, from first principles.

Rotations are products of turns about one axis, as matrices and as quaternions side by side; no
code is shared with the package. float64 throughout; metres, radians; quaternions w x y z.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Motion:
    """position (T, 3); matrix (T, 3, 3) and quaternion (T, 4) of one rotation; yaw (T,)."""

    position: np.ndarray
    matrix: np.ndarray
    quaternion: np.ndarray
    yaw: np.ndarray
    gripper: np.ndarray
    """(T,) 1 = open, 0 = closed; it changes at least once."""


def plant(number: int, steps: int) -> Motion:
    """A slow arc over a table, the tool pointing about downward; `number` tells motions apart."""
    t = np.arange(steps)
    position = np.stack(
        [
            0.40 + 0.008 * t,
            0.05 * number + 0.05 * np.sin(0.15 * t),
            0.25 - 0.004 * t + 0.01 * np.cos(0.3 * t),
        ],
        axis=1,
    )
    yaw = 0.6 - 0.4 * number + 0.03 * t
    turns = [("x", np.pi - 0.2 + 0.02 * t), ("y", 0.15 - 0.02 * t), ("z", yaw)]
    return Motion(
        position,
        _product([turn_matrix(axis, angle) for axis, angle in turns]),
        _product([turn_quaternion(axis, angle) for axis, angle in turns]),
        yaw,
        ((3 * t // steps + number + 1) % 2).astype(float),
    )


def turn_matrix(axis: str, angle: np.ndarray) -> np.ndarray:
    """(T, 3, 3) turns about one axis."""
    first = "xyz".index(axis)
    second, third = (first + 1) % 3, (first + 2) % 3
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, first, first] = 1.0
    matrix[:, second, second] = matrix[:, third, third] = np.cos(angle)
    matrix[:, third, second] = np.sin(angle)
    matrix[:, second, third] = -np.sin(angle)
    return matrix


def turn_quaternion(axis: str, angle: np.ndarray) -> np.ndarray:
    """(T, 4) turns about one axis."""
    quaternion = np.zeros((len(angle), 4))
    quaternion[:, 0] = np.cos(angle / 2)
    quaternion[:, 1 + "xyz".index(axis)] = np.sin(angle / 2)
    return quaternion


def euler(matrix: np.ndarray, axes: str) -> np.ndarray:
    """(T, 3) angles: turns about the fixed axes in this order, or about moving ones (capitals).

    For fixed axes i, j, k: R = R_k(c) R_j(b) R_i(a), whose entries give the angles directly.
    """
    if axes.isupper():
        return euler(matrix, axes[::-1].lower())[:, ::-1]
    i, j, k = ("xyz".index(axis) for axis in axes)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    first = np.arctan2(sign * matrix[:, k, j], matrix[:, k, k])
    second = np.arcsin(np.clip(-sign * matrix[:, k, i], -1.0, 1.0))
    third = np.arctan2(sign * matrix[:, j, i], matrix[:, i, i])
    return np.stack([first, second, third], axis=1)


def rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """(T, 3) axis times angle."""
    length = np.linalg.norm(quaternion[:, 1:], axis=1, keepdims=True)
    angle = 2 * np.arctan2(length, quaternion[:, :1])
    return quaternion[:, 1:] / length * angle


def homogeneous(motion: Motion, order: str) -> np.ndarray:
    """(T, 16) of the 4x4 matrices, row by row or column by column."""
    pose = np.zeros((len(motion.position), 4, 4))
    pose[:, :3, :3] = motion.matrix
    pose[:, :3, 3] = motion.position
    pose[:, 3, 3] = 1.0
    return (pose if order == "row" else pose.transpose(0, 2, 1)).reshape(-1, 16)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T,) angle of the rotation from one unit quaternion to the other."""
    difference = multiply(a * [1, -1, -1, -1], b)
    return 2 * np.arctan2(np.linalg.norm(difference[:, 1:], axis=1), np.abs(difference[:, 0]))


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T, 4) Hamilton's product."""
    aw, av, bw, bv = a[:, :1], a[:, 1:], b[:, :1], b[:, 1:]
    scalar = aw * bw - np.sum(av * bv, axis=1, keepdims=True)
    return np.concatenate([scalar, aw * bv + bw * av + np.cross(av, bv)], axis=1)


def _product(turns: list[np.ndarray]) -> np.ndarray:
    """The first turn happens first, all about fixed axes."""
    combine = np.matmul if turns[0].ndim == 3 else multiply
    result = turns[0]
    for turn in turns[1:]:
        result = combine(turn, result)
    return result
