"""Recorded RGB-D streams: what a robot's camera and arm measured, in one file.

A stream is an .npz file of the arrays in `FIELDS`, T frames of 10 a second. Any program that has
NumPy writes one: `numpy.savez_compressed("stream.npz", time=..., position=..., ...)`.
"""

import dataclasses
import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridgeact_jax.errors import UserError, nearest
from bridgeact_jax.files import write_bytes

NORM_TOLERANCE = 1e-2  # of a recorded quaternion


class Field(NamedTuple):
    """shape: sizes by letter, the same letter the same size; kinds: of NumPy's dtype."""

    shape: str
    kinds: str
    meaning: str


FIELDS = {
    "time": Field("T", "f", "s, rising"),
    "position": Field("T3", "f", "of the tool, m, base frame"),
    "rotation": Field("T4", "f", "of the tool, unit quaternion w x y z, base frame"),
    "gripper_width": Field("T", "f", "0 closed to 1 open, NaN where it is not measured"),
    "depth": Field("Thw", "uf", "uint16 mm or floating-point m, 0 where nothing was measured"),
    "intrinsics": Field("33", "f", "pixels; pixel (0, 0) is the centre of the top left one"),
    "camera_pose": Field("44", "f", "T_base_camera, (4, 4) or (T, 4, 4): x right, y down, z ahead"),
    "prompt": Field("", "U", "what to do, in words"),
    "gripper": Field("T", "f", "optional: as last commanded, 1 open to 0 closed"),
    "image": Field("Thw3", "u", "optional: colours, uint8"),
    "plan_position": Field("K3", "f", "optional: poses to pass after the first frame's, m, base"),
    "plan_rotation": Field("K4", "f", "with plan_position: unit quaternions"),
    "plan_gripper": Field("K", "f", "with plan_position: 1 open to 0 closed, as commanded there"),
}
_PLAN = ("plan_position", "plan_rotation", "plan_gripper")
_OPTIONAL = ("gripper", "image", *_PLAN)
_SHARES = ("gripper", "gripper_width", "plan_gripper")  # of opening, 0 to 1


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A stream's arrays by the names of `FIELDS`; None for optional ones that are not there.

    `camera_pose` is (T, 4, 4) and `prompt` a str, whatever the file has.
    """

    time: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    gripper_width: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    camera_pose: np.ndarray
    prompt: str
    gripper: np.ndarray | None = None
    image: np.ndarray | None = None
    plan_position: np.ndarray | None = None
    plan_rotation: np.ndarray | None = None
    plan_gripper: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.time)


def write_recording(path: str | os.PathLike, recording: Recording) -> None:
    """Write a stream, whole or not at all. Raises UserError if it cannot be written."""
    arrays = {name: value for name, value in vars(recording).items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_recording(path: str | os.PathLike) -> Recording:
    """The stream in a file. Raises UserError, which names the array, for one that is none."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # what is raised depends on which part is damaged
        raise UserError(f"{path}: no recorded stream, which is an .npz file: {error}") from None
    _check(path, arrays)
    pose = np.asarray(arrays["camera_pose"], np.float64)
    arrays["camera_pose"] = np.broadcast_to(pose, (len(arrays["time"]), 4, 4))
    arrays["prompt"] = str(arrays["prompt"])
    return Recording(**arrays)


def observation(
    recording: Recording, frame: int, *, planned: bool = True, pictured: bool = False
) -> dict:
    """What a robot would send at a frame, but for its clock.

    Args:
      planned: with the recorded plan, if there is one; pictured: with the colours, likewise.
    """
    depth = recording.depth[frame]
    told = {
        "position": recording.position[frame],
        "rotation": recording.rotation[frame],
        "gripper_width": float(recording.gripper_width[frame]),
        "depth": depth if depth.dtype == np.uint16 else depth.astype(np.float32),
        "intrinsics": recording.intrinsics,
        "camera_pose": recording.camera_pose[frame],
        "prompt": recording.prompt,
    }
    if recording.gripper is not None:
        told["gripper"] = float(recording.gripper[frame])
    if planned and recording.plan_position is not None:
        told["plan"] = {name.removeprefix("plan_"): getattr(recording, name) for name in _PLAN}
    if pictured and recording.image is not None:
        told["image"] = recording.image[frame]
    return told


def lifted(recording: Recording, frame: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Points (M, 3) m, base frame, of the measured pixels, and their colours (M, 3) uint8."""
    depth = recording.depth[frame]
    metres = depth * 1e-3 if depth.dtype == np.uint16 else np.asarray(depth, np.float64)
    known = np.isfinite(metres) & (metres > 0)
    row, column = np.nonzero(known)
    pixels = np.stack([column, row, np.ones(len(row))])
    points = np.linalg.inv(recording.intrinsics) @ pixels * metres[known]
    pose = recording.camera_pose[frame]
    colours = None if recording.image is None else recording.image[frame][known]
    return (pose[:3, :3] @ points).T + pose[:3, 3], colours


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name in arrays:
        if name not in FIELDS:
            raise UserError(f"{path}: unknown array '{name}': {nearest(name, FIELDS)}")
    some_plan = any(name in arrays for name in _PLAN)
    for name, field in FIELDS.items():
        if name not in arrays and (name not in _OPTIONAL or (some_plan and name in _PLAN)):
            raise UserError(f"{path}: no array '{name}': {field.meaning}")
    sizes: dict[str, int] = {}
    for name, value in arrays.items():
        field = FIELDS[name]
        shape = field.shape if name != "camera_pose" or value.ndim == 2 else "T" + field.shape
        wanted = [int(letter) if letter.isdigit() else letter for letter in shape]
        fits = value.ndim == len(wanted) and value.dtype.kind in field.kinds
        fits = fits and all(
            size == (sizes.setdefault(letter, size) if isinstance(letter, str) else letter)
            for size, letter in zip(value.shape, wanted, strict=True)
        )
        if not fits or (value.dtype.kind == "u" and value.dtype != _unsigned(name)):
            known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
            raise UserError(
                f"{path}: array '{name}' is {value.shape} {value.dtype}: must be "
                f"({', '.join(map(str, wanted))}), {field.meaning} ({known})"
            )
        if value.dtype.kind == "f" and name != "depth":
            _check_numbers(path, name, value)
    if not len(arrays["time"]):
        raise UserError(f"{path}: has no frames")
    if np.any(np.diff(arrays["time"]) <= 0):
        raise UserError(f"{path}: array 'time' must rise from frame to frame")


def _check_numbers(path: Path, name: str, value: np.ndarray) -> None:
    if name in _SHARES and np.any((value < 0) | (value > 1)):
        raise UserError(f"{path}: array '{name}' is not within 0 and 1")
    if name != "gripper_width" and not np.all(np.isfinite(value)):
        raise UserError(f"{path}: array '{name}' is not finite")
    if name in ("rotation", "plan_rotation"):
        wrong = np.abs(np.linalg.norm(value, axis=-1) - 1) > NORM_TOLERANCE
        if wrong.any():
            raise UserError(
                f"{path}: array '{name}' row {np.argmax(wrong)} has not length 1: must be unit "
                "quaternions w x y z"
            )


def _unsigned(name: str) -> type:
    return np.uint16 if name == "depth" else np.uint8
