"""Rigid poses. `T_a_b` is the pose of frame b in frame a."""

from typing import NamedTuple

import jax

from bridgeact_jax.geometry import rotations


class Pose(NamedTuple):
    """position (..., 3) in metres, rotation (..., 4) as unit quaternion wxyz."""

    position: jax.Array
    rotation: jax.Array


def compose(T_a_b: Pose, T_b_c: Pose) -> Pose:
    """T_a_c."""
    return Pose(
        T_a_b.position + rotations.rotate(T_a_b.rotation, T_b_c.position),
        rotations.multiply(T_a_b.rotation, T_b_c.rotation),
    )


def inverse(T_a_b: Pose) -> Pose:
    """T_b_a."""
    rotation = rotations.conjugate(T_a_b.rotation)
    return Pose(-rotations.rotate(rotation, T_a_b.position), rotation)


def transform_points(T_a_b: Pose, points_b: jax.Array) -> jax.Array:
    """Points (..., N, 3) given in frame b, expressed in frame a; metres."""
    return (
        rotations.rotate(T_a_b.rotation[..., None, :], points_b) + T_a_b.position[..., None, :]
    )
