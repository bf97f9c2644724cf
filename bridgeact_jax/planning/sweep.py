"""The way of a hand along a plan's curve, and which points of a cloud are in it.

Base frame, metres. The hand is a palm and two fingers in the tool frame, whose z axis points where
the fingers do and whose y axis is the one along which they open.
"""

from functools import cache
from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from bridgeact_jax.geometry.guidance import (
    SAMPLES_PER_SEGMENT,
    Guidance,
    Waypoints,
    build_guidance,
    is_open,
)

THING_ABOVE = 0.012  # metres above the table from which on a point belongs to a thing
MOST_POINTS = 4096
CAPACITY = 24  # waypoints for which a curve is compiled, and multiples of it
THINNEST = 0.011  # metres to either side, of what `thinner` leaves
HELD = 0.05  # metres around the tool, and above it, of what it holds
DEEPEST = 0.1  # metres below the tool, likewise
_STEP = 0.02  # metres along the curve from one sample to the next
# Corners (2, 3) of boxes around common parallel grippers (Panda's hand, 85 mm grippers): the wrist
# that carries the palm, the palm, and the fingers with what is between them.
WRIST = np.array([[-0.09, -0.09, -0.34], [0.09, 0.09, -0.17]])
PALM = np.array([[-0.034, -0.102, -0.170], [0.034, 0.102, -0.045]])
OPENED = np.array([[-0.011, -0.064, -0.060], [0.011, 0.064, 0.006]])
CLOSED = np.array([[-0.011, -0.024, -0.060], [0.011, 0.024, 0.006]])


class Curve(NamedTuple):
    """Samples of a plan's curve.

    Attributes:
      position: (S, 3) metres. rotation: (S, 4) wxyz.
      opened: (S,) bool, whether the hand is open on the way to the sample.
      progress: (S,) metres along the guidance.
      leg: (S,) number of the waypoint that the sample leads to; the last of a leg is that waypoint.
    """

    position: np.ndarray
    rotation: np.ndarray
    opened: np.ndarray
    progress: np.ndarray
    leg: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """(S, 3, 3) rotation matrices."""
        return matrices(self.rotation)


def matrices(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) of unit quaternions (..., 4) wxyz."""
    return Rotation.from_quat(rotation, scalar_first=True).as_matrix()


def unpadded(waypoints: Waypoints) -> Waypoints:
    """The waypoints in use, as float64 arrays."""
    count = int(waypoints.count)
    position, rotation, gripper = (np.asarray(x, float)[:count] for x in waypoints[:3])
    return Waypoints(position, rotation, gripper, np.int32(count))


@cache
def _compiled_build():
    return jax.jit(build_guidance)


def guidance_of(waypoints: Waypoints) -> Guidance:
    """The plan's guidance as NumPy arrays; plans of similar length compile once."""
    waypoints = unpadded(waypoints)
    count = int(waypoints.count)
    rows = np.minimum(np.arange(-(-count // CAPACITY) * CAPACITY), count - 1)
    padded = Waypoints(*(x[rows].astype(np.float32) for x in waypoints[:3]), waypoints.count)
    samples = 1 + (count - 1) * (SAMPLES_PER_SEGMENT + 1)
    return Guidance(*(np.asarray(x, float)[:samples] for x in _compiled_build()(padded)))


def curve_of(guidance: Guidance) -> Curve:
    """Samples of the curve some centimetres apart, every waypoint among them."""
    per_leg = SAMPLES_PER_SEGMENT + 1
    legs = (len(guidance.progress) - 1) // per_leg
    rows, leg = [0], [0]
    for k in range(legs):
        first, last = k * per_leg, k * per_leg + SAMPLES_PER_SEGMENT
        length = guidance.progress[last] - guidance.progress[first]
        count = int(np.clip(np.ceil(length / _STEP), 1, SAMPLES_PER_SEGMENT))
        rows.extend(np.round(np.linspace(first, last, count + 1)[1:]).astype(int))
        leg.extend([k + 1] * count)
    return Curve(
        np.asarray(guidance.position, float)[rows],
        np.asarray(guidance.rotation, float)[rows],
        np.asarray(is_open(guidance.gripper))[rows],
        np.asarray(guidance.progress, float)[rows],
        np.array(leg),
    )


def in_tool(points: np.ndarray, position: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (M, 3) in each of S tool frames, (S, M, 3)."""
    origin = position[:, None] @ matrix
    return (points @ matrix - origin).astype(np.float32)


def inside(local: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(...,) which of the points (..., 3) lie in a box of corners (2, 3)."""
    x, y, z = (local[..., i] for i in range(3))
    (x0, y0, z0), (x1, y1, z1) = box.astype(local.dtype)
    return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (z >= z0) & (z <= z1)


def thinner(box: np.ndarray, aside: float, above: float) -> np.ndarray:
    """A box of the hand narrower by `aside` on either side, and shorter by `above` at its tip.

    What is too narrow for that stays `THINNEST`.
    """
    half = np.maximum(box[1] - np.array([aside, aside, 0.0]), THINNEST)
    return np.array([[-half[0], -half[1], box[0, 2]], [half[0], half[1], box[1, 2] - above]])


def things_of(cloud: np.ndarray, table: float) -> np.ndarray:
    """The different finite points (M, 3) of a cloud that do not belong to the table.

    Every so many of them where there are more than `MOST_POINTS`.
    """
    cloud = np.asarray(cloud, float).reshape(-1, 3)
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    things = np.unique(cloud[cloud[:, 2] > table + THING_ABOVE], axis=0)
    return things[:: -(-len(things) // MOST_POINTS) or 1]


def without_held(
    things: np.ndarray, position: np.ndarray, rotation: np.ndarray
) -> np.ndarray:
    """The points (M, 3) that do not belong to what a hand at a pose holds."""
    local = in_tool(things, position[None], matrices(rotation)[None])[0]
    around = (np.linalg.norm(local[:, :2], axis=1) < HELD) & (local[:, 2] > -HELD)
    return things[~(around & (local[:, 2] < DEEPEST))]
