"""What a depth camera does to the points it sees: noise, quantisation, holes, kinds of depth.

Points are (n, 3) metres in the base frame; a camera is its pose, as `cameras.camera_poses` has it.

Stereo: depth is focal length times baseline over disparity, so that an error of the matched
disparity grows with the square of the depth, and what one window matches errs together (Intel
RealSense D400 white papers: about 0.1 pixel). Monocular: a network's metric depth is wrong by a
factor that is much the same over the picture and from frame to frame; its mean relative error
indoors is 6 to 8 % on the data set it was tuned on, tens of percent elsewhere (Yang et al. 2024,
Depth Anything; Bhat et al. 2023, ZoeDepth).
"""

import numpy as np
from scipy.spatial import cKDTree

from bridgeact_jax.sim.cameras import FIELD_OF_VIEW, Pose
from bridgeact_jax.sim.disturbances import Disturbance

PATCH_RADII = (0.01, 0.04)  # of holes, in the picture at unit depth: 1 to 4 cm at a metre
WINDOW = 0.03  # side of what stereo matches at once, likewise: 8 of the cameras' 240 pixels


def measured(
    points: np.ndarray,
    camera: Pose,
    disturbance: Disturbance,
    rng: np.random.Generator,
    lasting: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The points as the camera measures them, and (n,) bool, which of them it measures at all.

    What is drawn from `rng` is new in each picture, what is drawn from `lasting` should not be.
    """
    seen = np.ones(len(points), bool)
    if disturbance.monocular_error:
        points = misjudged(points, camera, disturbance.monocular_error, lasting)
    if disturbance.stereo_noise:
        points = mismatched(points, camera, disturbance.stereo_noise, rng)
    if disturbance.sensor_noise:
        points = noisy(points, camera, disturbance.sensor_noise, rng)
    if disturbance.holes:
        seen = ~lost_in_holes(points, camera, disturbance.holes, rng)
    if disturbance.quantisation:
        points = quantised(points, camera, disturbance.quantisation)
    return points, seen


def measured_depth(
    depth: np.ndarray,
    matrix: np.ndarray,
    disturbance: Disturbance,
    rng: np.random.Generator,
    lasting: np.random.Generator,
) -> np.ndarray:
    """A picture (h, w) of depths in metres as the camera measures it; 0 is no measurement.

    `matrix` (3, 3) holds the intrinsics; the generators are those of `measured`. The number of
    points is the cloud's affair.
    """
    rows, columns = np.nonzero(depth)
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1)
    here = (np.zeros(3), np.eye(3))
    rays = pixels @ np.linalg.inv(matrix).T
    points, kept = measured(rays * depth[rows, columns, None], here, disturbance, rng, lasting)
    result = np.zeros_like(depth)
    result[rows[kept], columns[kept]] = points[kept, 2]
    return result


def noisy(
    points: np.ndarray, camera: Pose, deviation: float, rng: np.random.Generator
) -> np.ndarray:
    """The points moved along their rays by independent Gaussians, standard deviation in metres."""
    rays = points - camera[0]
    lengths = np.linalg.norm(rays, axis=1, keepdims=True)
    return points + deviation * rng.standard_normal((len(points), 1)) * rays / lengths


def quantised(points: np.ndarray, camera: Pose, step: float) -> np.ndarray:
    """The points moved along their rays to depths (along the optical axis) of whole steps."""
    position, rotation = camera
    rays = points - position
    depth = rays @ rotation[:, 2:]
    return position + rays * (np.maximum(np.round(depth / step), 1) * step / depth)


def mismatched(
    points: np.ndarray, camera: Pose, deviation: float, rng: np.random.Generator
) -> np.ndarray:
    """The points moved along their rays as stereo errs.

    `deviation` is the standard deviation of the depth at one metre, in metres; it grows with the
    square of the depth. Points in one `WINDOW` of the picture err alike.
    """
    position, rotation = camera
    rays = points - position
    local = rays @ rotation
    depth = local[:, 2:]
    windows = np.floor(local[:, :2] / depth / WINDOW).astype(int)
    _, window = np.unique(windows, axis=0, return_inverse=True)
    error = deviation * rng.standard_normal(window.max(initial=-1) + 1)[window.reshape(-1), None]
    return position + rays * np.maximum(1 + error * depth, 0.1)


def misjudged(
    points: np.ndarray, camera: Pose, share: float, rng: np.random.Generator
) -> np.ndarray:
    """The points moved along their rays as a network errs that sees one picture.

    The logarithm of the factor by which depth is wrong is a plane over the picture with Gaussian
    coefficients, the same for all points; `share` is its root mean square over picture and draws.
    """
    position, rotation = camera
    rays = points - position
    local = rays @ rotation
    picture = local[:, :2] / local[:, 2:] / np.tan(FIELD_OF_VIEW / 2)  # -1 to 1
    level, *slope = rng.standard_normal(3) / np.sqrt(1 + 2 / 3)
    return position + rays * np.exp(share * (level + picture @ slope))[:, None]


def lost_in_holes(
    points: np.ndarray, camera: Pose, share: float, rng: np.random.Generator
) -> np.ndarray:
    """(n,) bool: a share of the points, rounded, that lies in round patches of the picture.

    Patches are centred on points and added one by one until the share is lost, the last one from
    its centre outwards.
    """
    lost = np.zeros(len(points), bool)
    to_lose = round(share * len(points))
    if not to_lose:
        return lost
    position, rotation = camera
    local = (points - position) @ rotation
    picture = local[:, :2] / local[:, 2:]
    tree = cKDTree(picture)
    for centre in rng.permutation(len(points)):
        if lost[centre]:
            continue
        patch = np.array(tree.query_ball_point(picture[centre], rng.uniform(*PATCH_RADII)))
        patch = patch[~lost[patch]]
        if len(patch) > to_lose:
            distance = np.linalg.norm(picture[patch] - picture[centre], axis=1)
            patch = patch[np.argsort(distance)[:to_lose]]
        lost[patch] = True
        to_lose -= len(patch)
        if not to_lose:
            return lost
