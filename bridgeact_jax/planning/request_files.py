"""A planner's request from files: a picture, its depth, its camera and the tool's state."""

import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from bridgeact_jax.errors import UserError, nearest
from bridgeact_jax.geometry import rotations
from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.poses import Pose
from bridgeact_jax.planning.protocol import PlanRequest, View

CAMERA_KEYS = ("fx", "fy", "cx", "cy", "T_base_camera")
STATE_KEYS = ("position", "rotation", "gripper")
RIGID = 1e-3  # by which a rotation matrix may miss being one
UNIT = 1e-2  # by which a quaternion's norm may miss 1


def read_request(
    picture: str, camera: str, instruction: str, state: str, depth: str | None = None
) -> PlanRequest:
    """The request that the files `picture`, `camera` and perhaps `depth` make up.

    Args:
      camera: JSON, see `read_camera`.
      state: JSON, or a file of it: position (3) m, rotation (4) wxyz and gripper, base frame.
      depth: see `read_depth`.

    Raises UserError for a file that cannot be read or does not hold what it should.
    """
    pixels = _read_picture(picture)
    measured = None if depth is None else read_depth(depth, pixels.shape[:2])
    text = state
    if not state.lstrip().startswith("{"):
        text = _read(state).decode("utf-8", "replace")
    fields = _fields(text, "the tool's state", STATE_KEYS)
    position, rotation, gripper = (
        _numbers_of(fields, "the tool's state", key, count)
        for key, count in zip(STATE_KEYS, (3, 4, 1), strict=True)
    )
    if abs(np.linalg.norm(rotation) - 1) > UNIT:
        raise UserError("the tool's state: 'rotation' must be a unit quaternion w x y z")
    if not 0 <= gripper[0] <= 1:
        raise UserError(f"the tool's state: 'gripper' must be from 0 to 1, not {gripper[0]:g}")
    view = View(picture=pixels, camera=read_camera(camera), depth=measured)
    return PlanRequest((view,), instruction, position, rotation, float(gripper[0]))


def read_camera(path: str) -> Camera:
    """The camera of a JSON file. Raises UserError for what is missing or cannot be.

    fx, fy, cx, cy in pixels, pixel (0, 0) the centre of the top left one; T_base_camera, the 16
    numbers of the camera's pose in the base, row by row, x right, y down, z forward.
    """
    where = f"camera {path}"
    fields = _fields(_read(path).decode("utf-8", "replace"), where, CAMERA_KEYS)
    fx, fy, cx, cy = (_numbers_of(fields, where, key, 1)[0] for key in CAMERA_KEYS[:4])
    if min(fx, fy) <= 0:
        raise UserError(f"{where}: 'fx' and 'fy' must be positive, not {fx:g} and {fy:g}")
    pose = _numbers_of(fields, where, "T_base_camera", 16).reshape(4, 4)
    turn = pose[:3, :3]
    rigid = np.abs(turn @ turn.T - np.eye(3)).max() < RIGID and np.linalg.det(turn) > 0
    if not rigid or np.abs(pose[3] - [0, 0, 0, 1]).max() > RIGID:
        raise UserError(
            f"{where}: 'T_base_camera' must be a rotation, a translation and 0, 0, 0, 1, row by row"
        )
    rotation = np.asarray(rotations.from_matrix(jnp.asarray(turn, jnp.float32)))
    return Camera(Pose(pose[:3, 3].astype(np.float32), rotation), fx, fy, cx, cy)


def read_depth(path: str, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 metres of a 16-bit PNG in millimetres or an .npy array in metres."""
    data = _read(path)
    try:
        if path.endswith(".npy"):
            depth = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32)
        else:
            with Image.open(io.BytesIO(data)) as image:
                if image.mode not in ("I;16", "I;16B", "I"):
                    raise UserError(f"{path}: a depth picture must be a 16-bit PNG, millimetres")
                depth = np.asarray(image).astype(np.float32) / 1000
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: no depth can be read from it: {error}") from None
    if depth.shape != shape:
        raise UserError(f"{path}: depth is {depth.shape}, the picture {shape} (rows, columns)")
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _read(path: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _read_picture(path: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(_read(path))) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: no picture can be read from it: {error}") from None


def _fields(text: str, where: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """The JSON object with exactly these keys."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where}: must be a JSON object with {', '.join(keys)}")
    for key in fields:
        if key not in keys:
            raise UserError(f"{where}: unknown key '{key}': {nearest(key, keys)}")
    missing = [key for key in keys if key not in fields]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing")
    return fields


def _numbers_of(fields: Mapping[str, Any], where: str, key: str, count: int) -> np.ndarray:
    try:
        values = np.array(fields[key], float).reshape(-1)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        what = "a finite number" if count == 1 else f"{count} finite numbers"
        raise UserError(f"{where}: '{key}' must be {what}, not {fields[key]}")
    return values
