"""A planner that knows the true waypoints and errs as told."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.geometry.noise import perturb_waypoints
from bridgeact_jax.geometry.rotations import conjugate, from_matrix, multiply, normalize

KINDS = (
    "off_object", "unreachable", "through_table", "gripper_order", "camera_frame", "millimetres"
)
WRONG_WAYPOINTS = ("none", *KINDS, "any")
Pose = tuple[np.ndarray, np.ndarray]  # position (3,) and rotation matrix (3, 3), base frame
BESIDE = (0.08, 0.12)  # metres from the object, of off_object
AWAY = (0.9, 1.2)  # metres from the base, of unreachable
BELOW = (0.05, 0.10)  # metres under the table's top, of through_table
SAME_PLACE = 1e-3  # metres within which waypoints are one place
_ATTEMPTS = 16  # what the keys of later answers are folded with, and further on


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
        "what is wrong with a plan. One waypoint: off_object, 8-12 cm beside what it should grasp "
        "or touch; unreachable, 0.9-1.2 m from the base; through_table, 5-10 cm below its top. "
        "All: gripper_order, open and closed swapped, or events one waypoint early or late; "
        "camera_frame, poses in the camera's frame; millimetres. any: one of these, by chance",
        WRONG_WAYPOINTS,
    )
    wrong_share: float = _axis(
        "share of the plans that wrong_waypoint applies to", (1.0, 0.0, 0.2, 0.5)
    )

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            value = getattr(self, axis.name)
            if isinstance(axis.default, float) and not 0 <= value < math.inf:
                raise UsageError(f"{axis.name}={value}: must be a finite number, 0 or more")
        if self.wrong_waypoint not in WRONG_WAYPOINTS:
            hint = nearest(self.wrong_waypoint, WRONG_WAYPOINTS)
            raise UsageError(f"unknown wrong_waypoint '{self.wrong_waypoint}': {hint}")
        if self.wrong_share > 1:
            raise UsageError(f"wrong_share={self.wrong_share}: must be a share from 0 to 1")


EXACT = PlannerErrors()


@jax.jit
def _err(key, waypoints, waypoint_noise, rotation_noise, depth_noise, camera):
    own_key, depth_key = jax.random.split(key)
    depth = depth_noise * jax.random.normal(depth_key)
    along_ray = depth * normalize(waypoints.position[1:] - camera)
    moved = waypoints._replace(position=waypoints.position.at[1:].add(along_ray))
    return perturb_waypoints(own_key, moved, waypoint_noise, rotation_std=rotation_noise)


def oracle_plan(
    key: jax.Array,
    waypoints: Waypoints,
    errors: PlannerErrors,
    *,
    camera: Pose,
    attempt: int = 0,
) -> Waypoints:
    """The true waypoints with a planner's errors; waypoint 0, the current pose, stays exact.

    Args:
      key: typed PRNG key of the episode. Each axis draws from it alone: turning one on leaves
        what the others draw as it was.
      waypoints: padded to a fixed size, base frame.
      camera: pose of the planner's camera in the base frame: (3,) metres and a matrix (3, 3), x
        right, y down, z forward.
      attempt: how many answers the planner has given before; each is drawn anew, but for the
        calibration, which stays.
    """
    kind, own_key = wrong_kind(key, errors, attempt), _answer_key(key, attempt)
    if kind in _MISPLACED:
        waypoints = _misplaced(jax.random.fold_in(own_key, 2), waypoints, kind)
    elif kind == "gripper_order":
        waypoints = _misordered(jax.random.fold_in(own_key, 4), waypoints)
    position = np.array(waypoints.position, np.float32)
    position[1:] += calibration_offset(key, errors)
    plan = _err(
        own_key,
        waypoints._replace(position=position),
        errors.waypoint_noise,
        errors.rotation_noise,
        errors.depth_noise,
        jnp.asarray(camera[0], jnp.float32),
    )
    plan = jax.tree.map(np.asarray, plan)
    if kind == "camera_frame":
        return _in_camera(plan, camera)
    if kind == "millimetres":
        return _after_start(plan, position=1000 * plan.position)
    return plan


def wrong_kind(key: jax.Array, errors: PlannerErrors, attempt: int = 0) -> str:
    """What is wrong with the plan that `oracle_plan` makes of these: one of `KINDS`, or "none"."""
    if errors.wrong_waypoint == "none":
        return "none"
    share, which = jax.random.uniform(jax.random.fold_in(_answer_key(key, attempt), 3), (2,))
    if share >= errors.wrong_share:
        return "none"
    if errors.wrong_waypoint == "any":
        return KINDS[int(which * len(KINDS))]
    return errors.wrong_waypoint


def _answer_key(key: jax.Array, attempt: int) -> jax.Array:
    return key if attempt == 0 else jax.random.fold_in(key, _ATTEMPTS + attempt)


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


_MISPLACED = ("off_object", "unreachable", "through_table")


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


def _misordered(key: jax.Array, waypoints: Waypoints) -> Waypoints:
    """The plan with open for closed and closed for open, or with its events a waypoint off.

    The events of a hand that closes for good in the air are only swapped: earlier or later it
    would press and push as well.
    """
    count = int(waypoints.count)
    gripper = np.array(waypoints.gripper, np.float32)
    opened = np.asarray(is_open(gripper[:count]))
    closings = np.flatnonzero(~opened[1:] & opened[:-1]) + 1
    takes_hold = np.any(np.isin(closings, contact_waypoints(waypoints)))
    way = int(3 * jax.random.uniform(key)) if takes_hold else 0
    if way == 0:
        gripper[1:] = 1 - gripper[1:]
    elif way == 1:
        gripper[1 : count - 1] = gripper[2:count]
    else:
        gripper[1:count] = gripper[: count - 1]
    return waypoints._replace(gripper=gripper)


def _in_camera(plan: Waypoints, camera: Pose) -> Waypoints:
    """The plan's poses in the camera's frame, where they should be in the base frame."""
    origin, matrix = camera
    turn = conjugate(from_matrix(jnp.asarray(matrix, jnp.float32)))
    return _after_start(
        plan,
        position=(plan.position - np.asarray(origin, np.float32)) @ np.asarray(matrix, np.float32),
        rotation=np.asarray(multiply(turn, plan.rotation)),
    )


def _after_start(plan: Waypoints, **columns: np.ndarray) -> Waypoints:
    """The plan with other columns, waypoint 0 as it was."""
    changed = plan._replace(**columns)
    first = np.arange(len(plan.gripper)) == 0
    return changed._replace(
        position=np.where(first[:, None], plan.position, changed.position),
        rotation=np.where(first[:, None], plan.rotation, changed.rotation),
    )
