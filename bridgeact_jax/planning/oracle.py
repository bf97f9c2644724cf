"""A planner that knows the true waypoints and errs as told."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.geometry.noise import perturb_waypoints
from bridgeact_jax.geometry.rotations import normalize

WRONG_WAYPOINTS = ("none", "off_object", "unreachable", "through_table")
BESIDE = (0.08, 0.12)  # metres from the object, of off_object
AWAY = (0.9, 1.2)  # metres from the base, of unreachable
BELOW = (0.05, 0.10)  # metres under the table's top, of through_table
SAME_PLACE = 1e-3  # metres within which waypoints are one place


def _axis(help_text: str, sweep: tuple):
    """A field whose first sweep value, off, is its default and tells its type."""
    return dataclasses.field(default=sweep[0], metadata={"help": help_text, "sweep": sweep})


@dataclasses.dataclass(frozen=True)
class PlannerErrors:
    """How a plan departs from the true one; zero or "none" turns an axis off.

    Raises UsageError for values that make no sense. A field's metadata holds its `help` text and
    the values of its `sweep`.
    """

    waypoint_noise: float = _axis(
        "standard deviation of each waypoint per axis, m", (0.0, 0.01, 0.02, 0.03, 0.05, 0.08)
    )
    rotation_noise: float = _axis(
        "standard deviation of each waypoint's rotation per axis, rad", (0.0, 0.1, 0.2, 0.35, 0.5)
    )
    depth_noise: float = _axis(
        "standard deviation of a plan along the camera's ray, m", (0.0, 0.01, 0.02, 0.04, 0.08)
    )
    calibration: float = _axis(
        "length of an offset of all that the cameras see, plan and clouds alike, m",
        (0.0, 0.005, 0.01, 0.02, 0.04),
    )
    wrong_waypoint: str = _axis(
        "one waypoint of each plan: off_object, 8-12 cm beside what it should grasp or touch; "
        "unreachable, 0.9-1.2 m from the base; through_table, 5-10 cm below its top",
        WRONG_WAYPOINTS,
    )

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            value = getattr(self, axis.name)
            if isinstance(axis.default, float) and not 0 <= value < math.inf:
                raise UsageError(f"{axis.name}={value}: must be a finite number, 0 or more")
        if self.wrong_waypoint not in WRONG_WAYPOINTS:
            hint = nearest(self.wrong_waypoint, WRONG_WAYPOINTS)
            raise UsageError(f"unknown wrong_waypoint '{self.wrong_waypoint}': {hint}")


EXACT = PlannerErrors()


@jax.jit
def _err(key, waypoints, waypoint_noise, rotation_noise, depth_noise, camera):
    own_key, depth_key = jax.random.split(key)
    depth = depth_noise * jax.random.normal(depth_key)
    along_ray = depth * normalize(waypoints.position[1:] - camera)
    moved = waypoints._replace(position=waypoints.position.at[1:].add(along_ray))
    return perturb_waypoints(own_key, moved, waypoint_noise, rotation_std=rotation_noise)


def oracle_plan(
    key: jax.Array, waypoints: Waypoints, errors: PlannerErrors, *, camera: np.ndarray
) -> Waypoints:
    """The true waypoints with a planner's errors; waypoint 0, the current pose, stays exact.

    Args:
      key: typed PRNG key of the episode. Each axis draws from it alone: turning one on leaves
        what the others draw as it was.
      waypoints: padded to a fixed size, base frame.
      camera: (3,) metres, position of the planner's camera in the base frame.
    """
    if errors.wrong_waypoint != "none":
        waypoints = _misplaced(jax.random.fold_in(key, 2), waypoints, errors.wrong_waypoint)
    position = np.array(waypoints.position, np.float32)
    position[1:] += calibration_offset(key, errors)
    plan = _err(
        key,
        waypoints._replace(position=position),
        errors.waypoint_noise,
        errors.rotation_noise,
        errors.depth_noise,
        jnp.asarray(camera, jnp.float32),
    )
    return jax.tree.map(np.asarray, plan)


def calibration_offset(key: jax.Array, errors: PlannerErrors) -> np.ndarray:
    """(3,) metres, base axes: by how much the episode's plan and clouds lie beside the truth.

    Its length is `errors.calibration`, its direction uniform on the sphere.
    """
    if errors.calibration == 0:
        return np.zeros(3, np.float32)
    direction = normalize(jax.random.normal(jax.random.fold_in(key, 1), (3,)))
    return errors.calibration * np.asarray(direction)


def contact_waypoints(waypoints: Waypoints) -> np.ndarray:
    """Indices of the waypoints that grasp, press or touch something.

    They are where the hand comes down to, or goes on at that height, without letting go: lower
    than or level with both neighbours, and not an opening of the gripper.
    """
    count = int(waypoints.count)
    height = np.asarray(waypoints.position)[:count, 2]
    opened = np.asarray(is_open(np.asarray(waypoints.gripper)[:count]))
    following = np.append(height[1:], np.inf)[1:]
    low = (height[1:] <= height[:-1] + SAME_PLACE) & (height[1:] <= following + SAME_PLACE)
    opening = opened[1:] & ~opened[:-1]
    return np.flatnonzero(low & ~opening) + 1


def _misplaced(key: jax.Array, waypoints: Waypoints, kind: str) -> Waypoints:
    """The plan with one place wrong, drawn from `key`; other waypoints of that place go along."""
    count = int(waypoints.count)
    anywhere = np.arange(1, count)
    candidates = contact_waypoints(waypoints) if kind == "off_object" else anywhere
    if not len(candidates):
        candidates = anywhere
    which, distance, bearing = np.asarray(jax.random.uniform(key, (3,)), np.float64)
    chosen = candidates[int(which * len(candidates))]
    position = np.array(waypoints.position, np.float32)
    right = position[chosen].copy()
    wrong = right.copy()
    if kind == "off_object":
        angle = 2 * np.pi * bearing
        away = BESIDE[0] + distance * (BESIDE[1] - BESIDE[0])
        wrong[:2] += away * np.array([np.cos(angle), np.sin(angle)])
    elif kind == "unreachable":
        wrong *= (AWAY[0] + distance * (AWAY[1] - AWAY[0])) / np.linalg.norm(right)
    else:
        wrong[2] = -(BELOW[0] + distance * (BELOW[1] - BELOW[0]))
    there = np.linalg.norm(position - right, axis=1) < SAME_PLACE
    there[0] = False
    position[there] = wrong
    return waypoints._replace(position=position)
