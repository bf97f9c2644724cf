"""Point clouds ray-cast from two fixed depth cameras: no graphics library is needed.

Each camera is a 240 x 240 depth image of which only the useful rays are cast: every fifth row and
column first, then all the rays around pixels that saw something other than the table.
"""

from collections.abc import Callable, Sequence

import mujoco
import numpy as np

TURN_JITTER, SHIFT_JITTER = np.radians(3.0), 0.01  # of each episode, to either side
CENTRE = np.array([0.5, 0.0, 0.06])  # what both cameras look at
DISTANCE, ELEVATION, AZIMUTHS = 0.85, np.radians(45), np.radians([50.0, -50.0])
FIELD_OF_VIEW = np.radians(46.0)
COARSE, REFINE = 48, 5  # coarse pixels a side; fine pixels a side of each
FINE_RAYS = 2200  # at most, for each camera
MAX_TABLE_SHARE = 0.25
REGION_LOW, REGION_HIGH = np.array([0.1, -0.6, -0.01]), np.array([0.95, 0.6, 0.8])

Pose = tuple[np.ndarray, np.ndarray]  # position (3,) and rotation matrix (3, 3), base frame


def camera_poses(
    turn: np.ndarray | float = 0.0, shift: np.ndarray | float = 0.0
) -> list[Pose]:
    """Position (3,) and rotation matrix (3, 3) of each camera; x right, y down, z forward.

    Args:
      turn: radians, of the cameras' azimuths; one for all or (2,).
      shift: metres, of the cameras' positions, direction kept; for all or (2, 3).
    """
    poses = []
    turns, shifts = np.broadcast_to(turn, 2), np.broadcast_to(shift, (2, 3))
    for azimuth, moved in zip(AZIMUTHS + turns, shifts, strict=True):
        away = np.array([
            np.cos(ELEVATION) * np.cos(azimuth), np.cos(ELEVATION) * np.sin(azimuth),
            np.sin(ELEVATION),
        ])
        right = np.cross(-away, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(-away, right), -away], axis=1)
        poses.append((CENTRE + DISTANCE * away + moved, rotation))
    return poses


def jittered_poses(
    rng: np.random.Generator, *, turn: float = 0.0, shift: float = 0.0
) -> list[Pose]:
    """`camera_poses` of an episode: each camera a little beside its place.

    Args:
      turn: radians, further turn of both cameras about what they look at.
      shift: metres by which both move along the base frame's y axis.
    """
    turns = rng.uniform(-TURN_JITTER, TURN_JITTER, 2)
    shifts = rng.uniform(-SHIFT_JITTER, SHIFT_JITTER, (2, 3))
    return camera_poses(turns + turn, shifts + np.array([0.0, shift, 0.0]))


def _directions(pixels_a_side: int) -> np.ndarray:
    """Unit vectors (n, n, 3) through the pixels' centres, camera frame."""
    half = np.tan(FIELD_OF_VIEW / 2)
    grid = half * ((np.arange(pixels_a_side) + 0.5) / pixels_a_side * 2 - 1)
    x, y = np.meshgrid(grid, grid)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


_COARSE = _directions(COARSE).reshape(-1, 3)
_FINE = (  # by the coarse pixel they lie in
    _directions(COARSE * REFINE)
    .reshape(COARSE, REFINE, COARSE, REFINE, 3).swapaxes(1, 2).reshape(COARSE * COARSE, -1, 3)
)


def _cast(model, data, origin, rays) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and ids (n,) of the geoms hit; -1 for none, or outside the region."""
    count = len(rays)
    hit, distance = np.empty(count, np.int32), np.empty(count)
    mujoco.mj_multiRay(
        model, data, origin, rays.reshape(-1), None, 1, -1, hit, distance, None, count, 2.0
    )
    points = origin + distance[:, None] * rays
    inside = np.all((points > REGION_LOW) & (points < REGION_HIGH), axis=1)
    hit[~inside] = -1
    return points, hit


def _dilate(mask: np.ndarray) -> np.ndarray:
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    tall = wide.copy()
    tall[:, 1:] |= wide[:, :-1]
    tall[:, :-1] |= wide[:, 1:]
    return tall


def cloud(
    model: mujoco.MjModel, data: mujoco.MjData, poses: Sequence[Pose], is_object: np.ndarray,
    table: int, rng: np.random.Generator, num_points: int, *,
    measure: Callable[[np.ndarray, Pose], tuple[np.ndarray, np.ndarray]] | None = None,
    distinct: int = 0,
) -> np.ndarray:
    """Points (num_points, 3) float16, metres, base frame, in random order.

    The robot hides what is behind it but leaves no points. Points of the table are at most a
    quarter; where too few points of objects are seen, some are repeated.

    Args:
      poses: of the cameras; see `camera_poses`.
      is_object: (ngeom,) bool, geoms that are neither robot nor table.
      table: id of the table's geom.
      measure: (points (n, 3), camera) -> the points as measured and (n,) bool, which of them are;
        None for a perfect camera.
      distinct: number of different points at most; 0 for as many as are seen.
    """
    objects, tables = [], []
    for position, rotation in poses:
        points, hit = _cast(model, data, position, _COARSE @ rotation.T)
        on_table, on_objects = points[hit == table], points[:0]
        seen = (is_object[hit] & (hit >= 0)).reshape(COARSE, COARSE)
        rays = _FINE[_dilate(seen).reshape(-1)].reshape(-1, 3)
        if len(rays) > FINE_RAYS:
            rays = rays[rng.choice(len(rays), FINE_RAYS, replace=False)]
        if len(rays):
            points, hit = _cast(model, data, position, rays @ rotation.T)
            on_objects = points[is_object[hit] & (hit >= 0)]
        if measure is not None:
            points, kept = measure(np.concatenate([on_table, on_objects]), (position, rotation))
            is_table = np.arange(len(points)) < len(on_table)
            on_table, on_objects = points[kept & is_table], points[kept & ~is_table]
        tables.append(on_table)
        objects.append(on_objects)
    objects, tables = np.concatenate(objects), np.concatenate(tables)
    if not len(objects) and not len(tables):
        return np.zeros((num_points, 3), np.float16)

    count = distinct or num_points
    num_tables = min(len(tables), int(MAX_TABLE_SHARE * count)) if len(objects) else count
    chosen = np.concatenate(
        [_pick(rng, tables, num_tables), _pick(rng, objects, count - num_tables)]
    )
    if distinct:
        chosen = _pick(rng, chosen, num_points)
    return rng.permutation(chosen).astype(np.float16)


def _pick(rng: np.random.Generator, points: np.ndarray, count: int) -> np.ndarray:
    """`count` of the points, each as often as the next, give or take one."""
    if count == 0:
        return points[:0]
    whole, rest = divmod(count, len(points))
    index = np.tile(np.arange(len(points)), whole)
    return points[np.concatenate([index, rng.permutation(len(points))[:rest]])]
