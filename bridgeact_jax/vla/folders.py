"""Reading the folders that `bridgeact vla-data` writes: pictures with questions, or with motion.

A folder has `manifest.json` and `pictures.npy`. Image-text: `samples.jsonl`, a line for each
picture. Robot: `episodes.jsonl` and a column for each of `COLUMNS`, a row for each picture, 10 Hz.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridgeact_jax.errors import UserError

SCHEMA_VERSION = 1
COLUMNS = {"position": (3,), "rotation": (4,), "gripper": (), "gripper_width": ()}


@dataclass(frozen=True, eq=False)
class ImageText:
    """pictures (N, H, W, 3) uint8, memory-mapped; question, answer and its group for each."""

    path: Path
    manifest: dict[str, Any]
    pictures: np.ndarray
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RobotEpisodes:
    """Episodes with their pictures; frames of an episode are consecutive rows.

    pictures (N, H, W, 3) uint8. position (N, 3) m, rotation (N, 4) wxyz, base frame; gripper (N,)
    the command sent at a frame, 1 = open; gripper_width (N,) in [0, 1], NaN where not measured.
    episodes: the lines of `episodes.jsonl`: "instruction", "reasoning", "first", "length", "split".
    """

    path: Path
    manifest: dict[str, Any]
    pictures: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    gripper: np.ndarray
    gripper_width: np.ndarray
    episodes: tuple[dict[str, Any], ...]


def read_imagetext(path: str | os.PathLike) -> ImageText:
    """A folder of questions. Raises UserError if it is missing, damaged or of another kind."""
    path = Path(path)
    manifest, pictures = _read(path, "imagetext")
    samples = _lines(path / "samples.jsonl", {"question": str, "answer": str, "group": str})
    if len(samples) != len(pictures):
        raise UserError(f"{path}: {len(samples)} samples of {len(pictures)} pictures: must be one")
    columns = (tuple(row[name] for row in samples) for name in ("question", "answer", "group"))
    return ImageText(path, manifest, pictures, *columns)


def read_robot(path: str | os.PathLike) -> RobotEpisodes:
    """A folder of episodes. Raises UserError if it is missing, damaged or of another kind."""
    path = Path(path)
    manifest, pictures = _read(path, "robot")
    columns = {}
    for name, shape in COLUMNS.items():
        columns[name] = _array(path / f"{name}.npy")
        if columns[name].shape != (len(pictures), *shape):
            raise UserError(
                f"{path / name}.npy is {columns[name].shape}: must be {(len(pictures), *shape)}"
            )
    kinds = {"instruction": str, "reasoning": str, "split": str, "first": int, "length": int}
    episodes = _lines(path / "episodes.jsonl", kinds)
    for number, episode in enumerate(episodes, 1):
        if not (0 <= episode["first"] < episode["first"] + episode["length"] <= len(pictures)):
            raise UserError(
                f"{path / 'episodes.jsonl'}: line {number}: its frames do not lie within the "
                f"{len(pictures)} of the folder"
            )
    return RobotEpisodes(path, manifest, pictures, **columns, episodes=tuple(episodes))


def _read(path: Path, kind: str) -> tuple[dict[str, Any], np.ndarray]:
    """The manifest of a folder of this kind, and its pictures."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except OSError as error:
        raise UserError(f"{path}: no folder of `bridgeact vla-data`: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path / 'manifest.json'}: is not JSON") from None
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path}: written by another version: generate it again")
    if manifest.get("kind") != kind:
        raise UserError(f"{path}: holds '{manifest.get('kind')}' data: must be '{kind}'")
    pictures = _array(path / "pictures.npy")
    shape = (*manifest.get("picture", ()), 3)
    if pictures.dtype != np.uint8 or pictures.shape[1:] != shape or not len(pictures):
        raise UserError(
            f"{path / 'pictures.npy'} is {pictures.shape} {pictures.dtype}: must be (N, "
            f"{', '.join(map(str, shape))}) uint8"
        )
    return manifest, pictures


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: is no .npy file ({error})") from None


def _lines(path: Path, kinds: dict[str, type]) -> list[dict[str, Any]]:
    """The JSON lines of a file, each with fields of these types."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{path}: line {number} is not JSON") from None
        for name, kind in kinds.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                raise UserError(f"{path}: line {number}: '{name}' must be of type {kind.__name__}")
        rows.append(row)
    return rows
