"""Errors a planner makes, drawn once per plan."""

import jax
import jax.numpy as jnp

from bridgeact_jax.geometry import rotations
from bridgeact_jax.geometry.guidance import Waypoints


def perturb_waypoints(
    key: jax.Array,
    waypoints: Waypoints,
    position_std: jax.Array | float,
    common_std: jax.Array | float = 0.0,
    rotation_std: jax.Array | float = 0.0,
) -> Waypoints:
    """Waypoints with Gaussian errors; waypoint 0, the current pose, stays exact.

    Args:
      key: typed PRNG key.
      position_std: metres per axis, independent for each waypoint.
      common_std: metres per axis, one offset shared by the whole plan.
      rotation_std: radians per axis of a rotation vector in the base frame, per waypoint.
    """
    waypoints = jax.tree.map(jnp.asarray, waypoints)
    own_key, common_key, rotation_key = jax.random.split(key, 3)
    own = position_std * jax.random.normal(own_key, waypoints.position.shape)
    common = common_std * jax.random.normal(common_key, (3,))
    tilt = rotation_std * jax.random.normal(rotation_key, waypoints.position.shape)
    position = waypoints.position.at[1:].add((own + common)[1:])
    turned = rotations.multiply(rotations.exp(tilt), waypoints.rotation)
    return waypoints._replace(
        position=position, rotation=waypoints.rotation.at[1:].set(turned[1:])
    )
