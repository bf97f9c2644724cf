"""What a calibrated camera of a dataset sees at the first step of an episode."""

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from bridgeact_jax.datasets.card_format import Camera, Card
from bridgeact_jax.datasets.cards import card_paths, load_card
from bridgeact_jax.datasets.depth_clouds import (
    camera_intrinsics,
    camera_keys,
    camera_poses,
    decode_depth,
)
from bridgeact_jax.datasets.episode import RejectedEpisode
from bridgeact_jax.datasets.interpret import Columns
from bridgeact_jax.datasets.rlds_reader import RldsDataset
from bridgeact_jax.errors import UsageError, UserError, nearest

PICTURE = "picture"


class FirstView(NamedTuple):
    """picture (H, W, 3) uint8; depth (H, W) float32 metres along the optical axis, 0 = unknown.

    intrinsics: fx, fy, cx, cy in pixels, pixel (0, 0) the centre of the top left one.
    T_base_camera: (4, 4), x right, y down, z forward.
    """

    picture: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    T_base_camera: np.ndarray


def calibrated(card: Card) -> tuple[Camera, ...]:
    """The card's cameras whose pictures, depth, intrinsics and pose are all known."""
    return tuple(camera for camera in card.cameras if camera.picture and not camera.lacks)


def find_camera(card: Card, name: str | None = None) -> Camera:
    """The calibrated camera called `name`, or the first one.

    Raises UserError if the card has none, and says which shipped cards do; UsageError if there is
    none of that name.
    """
    cameras = {camera.name: camera for camera in calibrated(card)}
    if not cameras:
        lacking = [
            f"camera {camera.name} lacks "
            + " and ".join([*camera.lacks, *([] if camera.picture else ["picture"])])
            for camera in card.cameras
        ]
        others = [name for name in card_paths() if calibrated(load_card(name))]
        raise UserError(
            f"card {card.name}: no calibrated camera ("
            + ("; ".join(lacking) or "it has no [[cameras]]")
            + f"): cards with one: {', '.join(others)}"
        )
    if name is None:
        return next(iter(cameras.values()))
    if name not in cameras:
        raise UsageError(f"card {card.name}: unknown camera '{name}': {nearest(name, cameras)}")
    return cameras[name]


def view_keys(card: Card, camera: Camera, dataset: RldsDataset) -> dict[str, str]:
    """{what: full key of its column} that `first_view` needs.

    Raises UserError for columns that the dataset lacks or that are of the wrong kind.
    """
    spec = dataset.find_column(camera.picture)
    if spec is None or spec.dtype == "text":
        what = "is not in" if spec is None else "is text in"
        raise UserError(
            f"card {card.path}: [[cameras]] {camera.name}: picture '{camera.picture}' {what} "
            f"{dataset.directory}: it was recorded without pictures, or needs another card"
        )
    return {PICTURE: spec.key, **camera_keys(card, camera, dataset)}


def first_view(camera: Camera, keys: Mapping[str, str], columns: Columns) -> FirstView:
    """What the camera saw at the first step. Raises RejectedEpisode for what cannot be decoded."""
    pictures = columns[keys[PICTURE]]
    depths = columns[keys[f"camera {camera.name} depth"]]
    if not len(pictures) or not len(depths):
        raise RejectedEpisode("no picture")
    picture = _decoded(pictures[0])
    depth = decode_depth(depths[0]).astype(np.float32) * np.float32(camera.depth_scale)
    if depth.shape != picture.shape[:2]:
        raise RejectedEpisode("picture and depth differ in size")
    unknown = ~np.isfinite(depth) | (depth <= 0)
    if camera.max_depth is not None:
        unknown |= depth > camera.max_depth
    steps = len(depths)
    pose = np.array(camera_poses(camera, keys, columns, steps)[0])
    if camera.axes == "opengl":
        pose[:3, :3] *= [1, -1, -1]
    intrinsics = camera_intrinsics(camera, keys, columns, steps)[0]
    return FirstView(picture, np.where(unknown, 0, depth).astype(np.float32), intrinsics, pose)


def _decoded(picture: bytes | np.ndarray) -> np.ndarray:
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise RejectedEpisode("a picture is not (height, width, 3) of 8 bits")
        return picture
    try:
        with Image.open(io.BytesIO(picture)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise RejectedEpisode("a picture cannot be decoded") from None
