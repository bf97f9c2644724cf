"""What a planner is asked and what it answers.

A planner answers in the frame of the request's first camera; `waypoints_of` brings the answer to
the base frame, once, in the form that `geometry.guidance` takes. What is made here has been
checked: a plan or request that exists has finite numbers, unit quaternions and sensible counts.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry import poses, rotations
from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.guidance import Waypoints

MAX_WAYPOINTS = 20  # of a plan, besides its target
NORM_TOLERANCE = 0.1  # of a quaternion that is taken for a rounded unit one
_ROOM = 16  # poses are transformed in multiples of this many


class PlanningError(UserError):
    """There is no plan; `usage` is what the attempt cost and `words` what was said, as in `Plan`.
    """

    def __init__(self, message: str, usage: dict[str, float] | None = None, words: str = ""):
        super().__init__(message)
        self.usage, self.words = usage or {}, words


class Unreachable(UserError):
    """Nothing answered, or it will not: no reason to ask it for another plan."""


@dataclass(frozen=True, eq=False)
class View:
    """What one camera sees. Raises PlanningError if the shapes do not fit.

    Attributes:
      picture: (H, W, 3) uint8.
      camera: pose and intrinsics; pixel (0, 0) is the centre of the top left pixel.
      depth: (H, W) float32 metres along the optical axis, 0 where nothing was measured; None for a
        camera without depth.
    """

    picture: np.ndarray
    camera: Camera
    depth: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.picture)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or self.picture.dtype != np.uint8:
            kind = getattr(self.picture, "dtype", type(self.picture).__name__)
            raise PlanningError(f"a picture is {shape} {kind}: must be (height, width, 3) uint8")
        if self.depth is not None and np.shape(self.depth) != shape[:2]:
            raise PlanningError(
                f"the depth is {np.shape(self.depth)}: must be {shape[:2]} like its picture"
            )

    @property
    def width(self) -> int:
        return self.picture.shape[1]

    @property
    def height(self) -> int:
        return self.picture.shape[0]


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """What a planner is told. Raises PlanningError for values that make no sense.

    Attributes:
      views: at least one; the answer is in the first one's camera frame.
      instruction: what to do, in words.
      position: (3,) m, rotation: (4,) wxyz of the tool, base frame.
      gripper: as commanded, 1 = open.
      refused: why earlier answers to this request were refused, oldest first.
      history: what has been done so far, in words, oldest first.
      key: names the request among others, e.g. "lift/3/0"; "" if what is asked tells it apart.
    """

    views: tuple[View, ...]
    instruction: str
    position: np.ndarray
    rotation: np.ndarray
    gripper: float
    refused: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    key: str = ""

    def __post_init__(self) -> None:
        if not self.views:
            raise PlanningError("a request has no view: a planner needs at least one picture")
        if not self.instruction.strip():
            raise PlanningError("a request has no instruction: say what is to be done")
        _set(self, position=np.array(_vector("the tool's position", self.position, 3)))
        _set(self, rotation=np.array(unit_quaternion("the tool's rotation", self.rotation)))
        _set(self, gripper=_share("the tool's gripper", self.gripper))


@dataclass(frozen=True)
class Anchor:
    """A point of the first picture that matters: `label`, e.g. "grasp", and pixel (u, v).

    `point` is the anchor lifted to 3D, (3,) metres, camera frame; None before it has been.
    Raises PlanningError for numbers that are not finite.
    """

    label: str
    pixel: tuple[float, float]
    point: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        _set(self, pixel=_vector(f"pixel of anchor '{self.label}'", self.pixel, 2))
        if self.point is not None:
            _set(self, point=_vector(f"point of anchor '{self.label}'", self.point, 3))


@dataclass(frozen=True)
class PlannedPose:
    """Where the tool is to be: position (3,) m and rotation (4,) wxyz, camera frame.

    `gripper` is what is commanded once the tool is there, 1 = open. A rotation of None is left to
    the plan: see `waypoints_of`. Raises PlanningError for numbers that make no sense; a rotation
    is normalised.
    """

    position: tuple[float, float, float]
    gripper: float
    rotation: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        _set(self, position=_vector("a position", self.position, 3))
        _set(self, gripper=_share("a gripper", self.gripper))
        if self.rotation is not None:
            _set(self, rotation=unit_quaternion("a rotation", self.rotation))


@dataclass(frozen=True)
class Plan:
    """A planner's answer. Raises PlanningError if it cannot be one.

    Attributes:
      waypoints: on the way, at most `MAX_WAYPOINTS`, without the tool's current pose and without
        the target; none for a way straight to the target.
      target: where the tool ends; its rotation is never None.
      anchors: points of the first picture.
      words: what the planner said, as it said it.
      confidence: in [0, 1], if the planner gives one.
      usage: what the answer cost: seconds, queries, tokens; whatever the planner knows.
    """

    waypoints: tuple[PlannedPose, ...]
    target: PlannedPose
    anchors: tuple[Anchor, ...] = ()
    words: str = ""
    confidence: float | None = None
    usage: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.waypoints) > MAX_WAYPOINTS:
            raise PlanningError(
                f"a plan of {len(self.waypoints)} waypoints: must be at most {MAX_WAYPOINTS}"
            )
        if self.target.rotation is None:
            raise PlanningError("a plan's target has no rotation")
        if self.confidence is not None:
            _set(self, confidence=_share("a plan's confidence", self.confidence))


class Planner(Protocol):
    """Anything that plans."""

    def plan(self, request: PlanRequest) -> Plan:
        """The plan for a request. Raises `PlanningError` when there is none, or `Unreachable`."""
        ...


def waypoints_of(plan: Plan, request: PlanRequest) -> Waypoints:
    """The plan in the base frame: the tool's pose, the waypoints, the target.

    A waypoint without rotation lies on the geodesic between its nearest neighbours that have one,
    by its share of the path's length from one to the other; the tool and the target always have.

    Returns:
      NumPy arrays, float32, without padding: 2 + len(plan.waypoints) entries.
    """
    planned = (*plan.waypoints, plan.target)
    given = np.array([pose.rotation is not None for pose in planned])
    position = [pose.position for pose in planned]
    rotation = [pose.rotation or (1.0, 0.0, 0.0, 0.0) for pose in planned]
    moved = _compose(
        _frame(request.views[0].camera), poses.Pose(_rows(position), _rows(rotation))
    )
    position = np.concatenate([request.position[None], moved.position[: len(planned)]])
    rotation = np.concatenate([request.rotation[None], moved.rotation[: len(planned)]])
    given = np.concatenate([[True], given])
    gripper = [request.gripper, *(pose.gripper for pose in planned)]
    return Waypoints(
        position.astype(np.float32),
        _filled(position, rotation, given).astype(np.float32),
        np.array(gripper, np.float32),
        np.asarray(len(gripper)),
    )


def plan_of_waypoints(
    waypoints: Waypoints,
    camera: Camera,
    *,
    anchors: tuple[Anchor, ...] = (),
    words: str = "",
    confidence: float | None = None,
) -> Plan:
    """The plan that `waypoints_of` brings back to these base-frame waypoints, but for the first.

    Args:
      waypoints: two or more in use; the first is the tool's pose, the last becomes the target.
      camera: whose frame the plan is in.
    """
    used = slice(1, int(waypoints.count))
    position, rotation = in_camera(camera, waypoints.position[used], waypoints.rotation[used])
    planned = [
        PlannedPose(tuple(at), float(gripper), tuple(turn))
        for at, turn, gripper in zip(position, rotation, waypoints.gripper[used], strict=True)
    ]
    if not planned:
        raise PlanningError("waypoints without a target: there must be two or more")
    return Plan(tuple(planned[:-1]), planned[-1], anchors, words, confidence)


def in_camera(
    camera: Camera, position: Sequence, rotation: Sequence
) -> tuple[np.ndarray, np.ndarray]:
    """Base-frame poses, position (K, 3) m and rotation (K, 4) wxyz, in the camera's frame."""
    moved = _from(_frame(camera), poses.Pose(_rows(position), _rows(rotation)))
    return np.asarray(moved.position)[: len(position)], np.asarray(moved.rotation)[: len(position)]


def unit_quaternion(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The quaternion wxyz normalised. Raises PlanningError if its norm is not nearly 1."""
    quaternion = _vector(name, values, 4)
    norm = math.hypot(*quaternion)
    if abs(norm - 1) > NORM_TOLERANCE:
        raise PlanningError(f"{name} has norm {norm:.3g}: must be a unit quaternion wxyz")
    return tuple(value / norm for value in quaternion)


_compose = jax.jit(poses.compose)
_from = jax.jit(lambda T_b_a, T_b_c: poses.compose(poses.inverse(T_b_a), T_b_c))
_slerp = jax.jit(rotations.slerp)


def _frame(camera: Camera) -> poses.Pose:
    """The camera's pose with an axis for rows, float32."""
    return poses.Pose(*(np.asarray(part, np.float32)[None] for part in camera.T_base_camera))


def _rows(values: Sequence) -> np.ndarray:
    """float32 with the first axis padded, so that few sizes are compiled."""
    room = [(0, -len(values) % _ROOM)] + [(0, 0)] * (np.ndim(values) - 1)
    return np.pad(np.asarray(values, np.float32), room)


def _filled(position: np.ndarray, rotation: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Rotations (K, 4) with those interpolated that are not given; the first and last are."""
    if given.all():
        return rotation
    steps = np.linalg.norm(np.diff(position, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps + 1e-9)])
    known = np.flatnonzero(given)
    right = np.searchsorted(known, np.arange(len(given))).clip(1)
    before, after = known[right - 1], known[right]
    share = (along - along[before]) / (along[after] - along[before])
    between = _slerp(_rows(rotation[before]), _rows(rotation[after]), _rows(share))
    return np.where(given[:, None], rotation, np.asarray(between)[: len(given)])


def _set(checked: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(checked, name, value)


def _vector(name: str, values: Sequence[float], size: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != size or not all(map(math.isfinite, numbers)):
        raise PlanningError(f"{name} is {numbers}: must be {size} finite numbers")
    return numbers


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise PlanningError(f"{name} is {value}: must be from 0 to 1")
    return float(value)
