"""A planner that knows the true waypoints and errs as told."""

import jax
import jax.numpy as jnp
import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.geometry.noise import perturb_waypoints
from bridgeact_jax.geometry.rotations import normalize


@jax.jit
def _err(key, waypoints, waypoint_noise, depth_noise, camera):
    own_key, depth_key = jax.random.split(key)
    depth = depth_noise * jax.random.normal(depth_key)
    along_ray = depth * normalize(waypoints.position[1:] - camera)
    moved = waypoints._replace(position=waypoints.position.at[1:].add(along_ray))
    return perturb_waypoints(own_key, moved, waypoint_noise)


def oracle_plan(
    key: jax.Array,
    waypoints: Waypoints,
    *,
    waypoint_noise: float,
    depth_noise: float,
    camera: np.ndarray,
) -> Waypoints:
    """The true waypoints with a planner's errors; waypoint 0, the current pose, stays exact.

    Args:
      key: typed PRNG key of the episode.
      waypoints: padded to a fixed size, base frame.
      waypoint_noise: metres per axis, independent for each waypoint.
      depth_noise: metres; one draw shifts every waypoint along its ray from the camera.
      camera: (3,) metres, position of the planner's camera in the base frame.
    """
    camera = jnp.asarray(camera, jnp.float32)
    return jax.tree.map(np.asarray, _err(key, waypoints, waypoint_noise, depth_noise, camera))
