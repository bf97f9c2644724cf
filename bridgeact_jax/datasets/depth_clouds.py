"""Point clouds of a dataset, per step: its depth pictures lifted, or points it recorded itself.

Stage 2 crops 0.3 m around the end-effector, so of lifted points only those within RADIUS are kept:
the rest allows for an end-effector displaced in training and for the time between a cloud and the
10 Hz row that uses it. A table fills most of a picture and says little: its share is bounded.

The robot's own points cannot be told from the scene's in recorded data, and stay.
"""

import io
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, UnidentifiedImageError

from bridgeact_jax.datasets.bind import bind_camera
from bridgeact_jax.datasets.card_format import Camera, Card
from bridgeact_jax.datasets.episode import CLOUD_SHAPE, Episode, RejectedEpisode
from bridgeact_jax.datasets.interpret import Columns
from bridgeact_jax.datasets.rlds_columns import ColumnSpec
from bridgeact_jax.datasets.rlds_reader import RldsDataset
from bridgeact_jax.errors import UserError

RADIUS = 0.5  # m
FAR = 1000.0  # m: where an empty cloud's points lie, outside every crop
MOST_PIXELS = 65_536  # of a picture; larger ones are thinned by rows and columns
MOST_TABLE = 0.25  # of a cloud's points
TABLE_BIN, TABLE_HALF = 0.01, 0.008  # m


def cloud_keys(card: Card, dataset: RldsDataset) -> dict[str, str]:
    """{what: full key of its column} that `episode_clouds` needs besides `bind_card`'s.

    Raises UserError if the card has neither a cloud nor a camera whose depth can be lifted, or a
    camera's column is not of the kind it must be.
    """
    if card.cloud is not None:
        return {"points": dataset.find_column(card.cloud.key).key}
    cameras = _usable(card)
    if not cameras:
        lacking = [
            f"camera {camera.name} lacks {' and '.join(camera.lacks)}" for camera in card.cameras
        ]
        raise UserError(
            f"card {card.path}: no clouds can be made: "
            + ("; ".join(lacking) or "it has neither [cloud] nor [[cameras]]")
        )
    keys = {}
    for camera in cameras:
        keys |= camera_keys(card, camera, dataset)
    return keys


def camera_keys(card: Card, camera: Camera, dataset: RldsDataset) -> dict[str, str]:
    """What `cloud_keys` says of one camera. Raises UserError for columns of the wrong kind."""
    bound = bind_camera(card, camera, dataset)
    _check_depth(card, camera, dataset.columns[bound["depth"]])
    return {_name(camera, what): key for what, key in bound.items()}


def episode_clouds(
    card: Card, keys: Mapping[str, str], columns: Columns, episode: Episode
) -> np.ndarray:
    """(T, 2048, 3) float16 points in metres, base frame; seeded by the episode's index and step.

    Args:
      keys: `bind_card`'s and `cloud_keys`'; columns: those of the episode, pictures encoded.

    More points are subsampled, fewer repeated; a step without any has all its points at FAR.
    Raises RejectedEpisode for a picture that cannot be decoded, or columns of the wrong length.
    """
    if episode.cloud is not None:
        return episode.cloud
    clouds = np.full((len(episode), *CLOUD_SHAPE), FAR, np.float16)
    if card.cloud is not None:
        frames = _recorded(columns[keys["points"]], card.cloud.scale)
    else:
        frames = _lifted(card, keys, columns, episode.position)
    for step, points in enumerate(frames):
        if len(points):
            rng = np.random.default_rng((episode.index, step))
            clouds[step] = bounded(rng, points, card.base_z_up and card.cloud is None)
    return clouds


def decode_depth(picture: bytes | np.ndarray) -> np.ndarray:
    """(H, W) depth in the units of a picture: numbers, or encoded with one channel.

    A PNG of four 8-bit channels is a float32 picture, as TensorFlow Datasets encodes it: each
    pixel holds the four bytes of its number.
    """
    if isinstance(picture, np.ndarray):
        return picture[..., 0] if picture.ndim == 3 else picture
    try:
        with Image.open(io.BytesIO(picture)) as image:
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise RejectedEpisode("a depth picture cannot be decoded") from None
    if pixels.ndim == 3 and pixels.shape[-1] == 4 and pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels).view("<f4")[..., 0]
    if pixels.ndim != 2:
        raise RejectedEpisode("a depth picture has more than one channel")
    return pixels


def lift(
    camera: Camera, depth: np.ndarray, intrinsics: np.ndarray, T_base_camera: np.ndarray
) -> np.ndarray:
    """(N, 3) float32 points, metres, base frame, of the pixels whose depth is known.

    Args:
      depth: (H, W), in units of `camera.depth_scale`, along the optical axis; 0, NaN and beyond
        `max_depth` are unknown.
      intrinsics: fx, fy, cx, cy in pixels; pixel (0, 0) is the centre of the top left one.
      T_base_camera: (4, 4) pose of the camera, whose axes are `camera.axes`.
    """
    turned = T_base_camera * ([1, -1, -1, 1] if camera.axes == "opengl" else [1, 1, 1, 1])
    farthest = np.inf if camera.max_depth is None else camera.max_depth
    return points_of(depth, intrinsics, turned, scale=camera.depth_scale, farthest=farthest)


def points_of(
    depth: np.ndarray,
    intrinsics: np.ndarray,
    T_base_camera: np.ndarray,
    *,
    scale: float = 1.0,
    farthest: float = np.inf,
) -> np.ndarray:
    """`lift` for a camera that looks along z, x right, y down; `farthest` in metres."""
    thin = int(np.ceil(np.sqrt(depth.size / MOST_PIXELS)))
    z = depth[::thin, ::thin].astype(np.float32) * np.float32(scale)
    known = np.isfinite(z) & (z > 0) & (z <= farthest)
    row, column = (thin * pixel.astype(np.float32) for pixel in np.nonzero(known))
    z = z[known]
    fx, fy, cx, cy = np.float32(intrinsics)
    points = np.stack([(column - cx) / fx * z, (row - cy) / fy * z, z], axis=-1)
    return points @ np.float32(T_base_camera[:3, :3].T) + np.float32(T_base_camera[:3, 3])


def _usable(card: Card) -> list[Camera]:
    return [camera for camera in card.cameras if not camera.lacks]


def _name(camera: Camera, what: str) -> str:
    return f"camera {camera.name} {what}"


def _check_depth(card: Card, camera: Camera, spec: ColumnSpec) -> None:
    where = f"card {card.path}: [[cameras]] {camera.name}: key '{camera.depth}' "
    if not spec.per_step:
        raise UserError(f"{where}is of the episode, not of each step")
    is_picture = spec.dtype == "image"
    sizes = spec.shape[:-1] if len(spec.shape) == 3 and spec.shape[-1] == 1 else spec.shape
    if len(sizes) != 2 or (is_picture and not spec.pixel):
        raise UserError(f"{where}has shape {spec.shape}; a depth picture's would be (h, w, 1)")
    if not is_picture and None in sizes:
        raise UserError(f"{where}holds numbers of a varying shape")


def _recorded(points: np.ndarray, scale: float) -> Iterator[np.ndarray]:
    for cloud in points:
        cloud = cloud.astype(np.float32) * np.float32(scale)
        yield cloud[np.isfinite(cloud).all(axis=-1)]


def _lifted(
    card: Card, keys: Mapping[str, str], columns: Columns, position: np.ndarray
) -> Iterator[np.ndarray]:
    """The points near the end-effector that all cameras see, step by step."""
    steps = len(position)
    cameras = [
        (
            camera,
            columns[keys[_name(camera, "depth")]],
            camera_intrinsics(camera, keys, columns, steps),
            camera_poses(camera, keys, columns, steps),
        )
        for camera in _usable(card)
    ]
    if any(len(depth) != steps for _, depth, _, _ in cameras):
        raise RejectedEpisode("columns differ in length")
    for step in range(steps):
        points = np.concatenate(
            [
                lift(camera, decode_depth(depth[step]), intrinsics[step], poses[step])
                for camera, depth, intrinsics, poses in cameras
            ]
        )
        offset = points - position[step]
        near = np.einsum("ij,ij->i", offset, offset) <= RADIUS**2
        yield points[near & (np.abs(points) <= card.limits.reach).all(axis=-1)]


def camera_intrinsics(
    camera: Camera, keys: Mapping[str, str], columns: Columns, steps: int
) -> np.ndarray:
    """(T, 4) fx, fy, cx, cy; `keys` as `cloud_keys` gives them."""
    if camera.intrinsics is not None:
        return np.tile(camera.intrinsics, (steps, 1))
    matrices = _every_step(columns[keys[_name(camera, "intrinsics")]], (3, 3), steps)
    return matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]]


def camera_poses(
    camera: Camera, keys: Mapping[str, str], columns: Columns, steps: int
) -> np.ndarray:
    """(T, 4, 4) poses of the camera in the base; `keys` as `cloud_keys` gives them."""
    if camera.T_base_camera is not None:
        return np.tile(np.reshape(camera.T_base_camera, (4, 4)), (steps, 1, 1))
    poses = _every_step(columns[keys[_name(camera, "pose")]], (4, 4), steps)
    if camera.pose == "T_base_camera":
        return poses
    inverse = np.swapaxes(poses, -1, -2).copy()
    inverse[:, :3, 3] = -np.einsum("tij,tj->ti", inverse[:, :3, :3], poses[:, :3, 3])
    inverse[:, 3] = [0, 0, 0, 1]
    return inverse


def _every_step(values: np.ndarray, shape: tuple[int, int], steps: int) -> np.ndarray:
    """(T, *shape) float64 of a column of each step, or of the episode."""
    matrices = values.reshape(len(values), *shape).astype(np.float64)
    if len(matrices) not in (1, steps):
        raise RejectedEpisode("columns differ in length")
    if not np.isfinite(matrices).all():
        raise RejectedEpisode("a camera's intrinsics or pose is not finite")
    return np.broadcast_to(matrices, (steps, *shape))


def bounded(rng: np.random.Generator, points: np.ndarray, has_table: bool) -> np.ndarray:
    """2,048 of the points (N, 3), N > 0, at most a quarter of the table if there is enough else."""
    count = CLOUD_SHAPE[0]
    table = _of_table(points[:, 2]) if has_table else np.zeros(len(points), bool)
    share = min(table.mean(), MOST_TABLE) if not table.all() else 1.0
    tables = int(share * count)
    chosen = [_pick(rng, points[table], tables), _pick(rng, points[~table], count - tables)]
    return rng.permutation(np.concatenate(chosen))


def _of_table(height: np.ndarray) -> np.ndarray:
    """(N,) which points lie at the most frequent height, to TABLE_HALF."""
    some = height[:: max(1, len(height) // 4096)]
    bins = np.floor((some - some.min()) / TABLE_BIN).astype(int)
    fullest = np.bincount(bins).argmax()
    level = np.median(some[np.abs(bins - fullest) <= 1])
    return np.abs(height - level) <= TABLE_HALF


def _pick(rng: np.random.Generator, points: np.ndarray, count: int) -> np.ndarray:
    """`count` of the points, each as often as the next, give or take one."""
    if count == 0:
        return points[:0]
    return points[np.resize(rng.permutation(len(points)), count)]
