"""The one fixed camera of the worlds that are read: in front of the table, looking at the robot.

"left" and "right" are those of its picture; "in front" is nearer to it, which is along the base
frame's x axis.
"""

import mujoco
import numpy as np

from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.poses import Pose

SIZE = (64, 96)  # rows, columns of its picture
FIELD_OF_VIEW = np.radians(14.5)  # from the upper to the lower edge
LOOK_AT, DISTANCE, ELEVATION = np.array([0.60, 0.0, 0.03]), 1.0, np.radians(42.0)

ROTATION = np.array([  # columns: x right, y down, z forward, in the base frame
    [0.0, np.sin(ELEVATION), -np.cos(ELEVATION)],
    [1.0, 0.0, 0.0],
    [0.0, -np.cos(ELEVATION), -np.sin(ELEVATION)],
])
POSITION = LOOK_AT - DISTANCE * ROTATION[:, 2]
FOCAL = SIZE[0] / 2 / np.tan(FIELD_OF_VIEW / 2)  # pixels
_CENTRE = (np.array(SIZE[::-1]) - 1) / 2  # (0, 0) is the centre of the top left pixel


def camera() -> Camera:
    """It as `geometry.cameras` has it, for a planner's request."""
    rotation = np.empty(4)
    mujoco.mju_mat2Quat(rotation, ROTATION.reshape(-1))
    return Camera(Pose(POSITION, rotation), FOCAL, FOCAL, *_CENTRE)


def pixel_of(points: np.ndarray) -> np.ndarray:
    """(..., 2) column and row at which points (..., 3), metres, base frame, are seen."""
    local = (points - POSITION) @ ROTATION
    return FOCAL * local[..., :2] / local[..., 2:] + _CENTRE


def on_table(pixels: np.ndarray) -> np.ndarray:
    """(..., 2) x and y in metres of the table's points at pixels (..., 2), column and row."""
    local = (np.asarray(pixels, float) - _CENTRE) / FOCAL
    rays = np.concatenate([local, np.ones((*local.shape[:-1], 1))], axis=-1) @ ROTATION.T
    return POSITION[:2] - rays[..., :2] * (POSITION[2] / rays[..., 2:])
