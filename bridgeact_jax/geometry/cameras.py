"""Pinhole cameras: x to the right, y down, z forward (the OpenCV convention)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry import poses


class Camera(NamedTuple):
    """`T_base_camera` pose of the camera; focal lengths `fx`, `fy` and centre `cx`, `cy`, pixels.

    Pixel (u, v) = (0, 0) is the centre of the top left pixel.
    """

    T_base_camera: poses.Pose
    fx: jax.Array
    fy: jax.Array
    cx: jax.Array
    cy: jax.Array


def project(camera: Camera, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pixels (..., N, 2) and depth along the optical axis (..., N) of base-frame points.

    Args:
      points: (..., N, 3) metres.

    Points at or behind the camera plane have depth <= 0 and meaningless pixels.
    """
    x, y, z = jnp.moveaxis(
        poses.transform_points(poses.inverse(camera.T_base_camera), points), -1, 0
    )
    safe = jnp.where(z > 0, z, 1.0)
    u = camera.fx * x / safe + camera.cx
    v = camera.fy * y / safe + camera.cy
    return jnp.stack([u, v], axis=-1), z


def unproject(camera: Camera, pixels: jax.Array, depth: jax.Array) -> jax.Array:
    """Base-frame points (..., N, 3) of pixels (..., N, 2) at `depth` metres (..., N) along z."""
    x = (pixels[..., 0] - camera.cx) / camera.fx * depth
    y = (pixels[..., 1] - camera.cy) / camera.fy * depth
    return poses.transform_points(camera.T_base_camera, jnp.stack([x, y, depth], axis=-1))
