"""What a planner is asked and what it answers.

A planner answers in the frame of the request's first camera; `waypoints_of` brings the answer to
the base frame, once, in the form that `geometry.guidance` takes.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.guidance import Waypoints


@dataclass(frozen=True)
class View:
    """What one camera sees.

    Attributes:
      picture: (H, W, 3) uint8.
      camera: pose and intrinsics; pixel (0, 0) is the centre of the top left pixel.
      depth: (H, W) float32 metres along the optical axis, 0 where nothing was measured; None for a
        camera without depth.
    """

    picture: np.ndarray
    camera: Camera
    depth: np.ndarray | None = None


@dataclass(frozen=True)
class PlanRequest:
    """What a planner is told.

    Attributes:
      views: at least one; the answer is in the first one's camera frame.
      instruction: what to do, in words.
      position: (3,) m, rotation: (4,) wxyz of the tool, base frame; gripper: as commanded, 1 = open.
      refused: why earlier answers to this request were refused, oldest first.
      history: what has been done so far, in words, oldest first.
    """

    views: tuple[View, ...]
    instruction: str
    position: np.ndarray
    rotation: np.ndarray
    gripper: float
    refused: tuple[str, ...] = ()
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anchor:
    """A point of the first picture that matters: `label`, e.g. "grasp", and pixel (u, v).

    `point` is the anchor lifted to 3D, (3,) metres, camera frame; None before it has been.
    """

    label: str
    pixel: tuple[float, float]
    point: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class PlannedPose:
    """position (3,) m and rotation (4,) wxyz of the tool, camera frame; gripper once there, 1 = open.

    A rotation of None is left to the plan: it goes evenly from the tool's to the target's.
    """

    position: tuple[float, float, float]
    gripper: float
    rotation: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """A planner's answer.

    Attributes:
      anchors: points of the first picture.
      waypoints: on the way, without the tool's current pose, and without the target.
      target: where the tool ends; its rotation is never None.
      words: what the planner said, as it said it.
      confidence: in [0, 1], if the planner gives one.
      usage: what the answer cost: seconds, queries, tokens; whatever the planner knows.
    """

    waypoints: tuple[PlannedPose, ...]
    target: PlannedPose
    anchors: tuple[Anchor, ...] = ()
    words: str = ""
    confidence: float | None = None
    usage: dict[str, float] = field(default_factory=dict)


class Planner(Protocol):
    """Anything that plans."""

    def plan(self, request: PlanRequest) -> Plan:
        """The plan for a request. Raises `PlanningError` when there is none."""
        ...


def waypoints_of(plan: Plan, request: PlanRequest) -> Waypoints:
    """The plan in the base frame, after the tool's pose; NumPy arrays without padding."""
    raise NotImplementedError
