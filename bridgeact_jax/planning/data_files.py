"""Files of a planner's fine-tuning data: pictures, records by part, drawings; and their figures."""

import collections
import hashlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from bridgeact_jax.planning.conversations import FORMATS
from bridgeact_jax.planning.data_card import Figures
from bridgeact_jax.progress import Progress

PICTURES, EXAMPLES = "pictures", "examples.png"


class Example(NamedTuple):
    """A demonstration as a record of the data.

    waypoints: how many its plan has, the target included. miss: metres by which the curve through
      them misses the demonstrated path, if they had to be thinned; else None.
    hidden: {reason: number} of anchors left out.
    drawing: (h, w, 3) uint8, the plan on its picture, if it was asked for.
    """

    name: str
    group: str
    record: str
    png: bytes
    waypoints: int
    miss: float | None
    hidden: dict[str, int]
    drawing: np.ndarray | None = None


class LeftOut(NamedTuple):
    """A demonstration that makes no example, and why."""

    group: str
    reason: str


class RecordFile:
    """A file of records in one format, written one by one; `close` completes it."""

    def __init__(self, path: pathlib.Path, form: str):
        self._array, self._count = FORMATS[form].array, 0
        self._file = path.open("w", encoding="utf-8")
        self._file.write("[" if self._array else "")

    def add(self, record: str) -> None:
        """Append the text of a record."""
        if self._array:
            self._file.write((",\n" if self._count else "\n") + record)
        else:
            self._file.write(record + "\n")
        self._count += 1

    def close(self) -> None:
        self._file.write("\n]\n" if self._array else "")
        self._file.close()


def is_validation(name: str, seed: int, share: float) -> bool:
    """Whether an episode is for validation: by its name and the seed alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def write_examples(
    folder: pathlib.Path, form: str, examples: Iterator[Example | LeftOut], total: int, seed: int,
    share: float,
) -> Figures:
    """Write the pictures, the two files of records and the drawings into an empty folder.

    Args:
      total: how many there are, those left out included; seed, share: see `is_validation`.
    """
    (folder / PICTURES).mkdir()
    files = {
        part: RecordFile(folder / f"{part}{FORMATS[form].suffix}", form)
        for part in ("train", "validation")
    }
    groups, parts, left_out, hidden, lengths = (collections.Counter() for _ in range(5))
    num_bytes, misses, drawings = 0, [], []
    with Progress(total, "episodes", "planner-data") as progress:
        for example in examples:
            progress.update(left_out=sum(left_out.values()) + isinstance(example, LeftOut))
            if isinstance(example, LeftOut):
                left_out[example.reason] += 1
                continue
            part = "validation" if is_validation(example.name, seed, share) else "train"
            (folder / PICTURES / f"{example.name}.png").write_bytes(example.png)
            files[part].add(example.record)
            num_bytes += len(example.png) + len(example.record.encode())
            parts[part] += 1
            groups[example.group] += 1
            hidden.update(example.hidden)
            lengths[example.waypoints] += 1
            drawings += [] if example.drawing is None else [example.drawing]
            misses += [] if example.miss is None else [round(example.miss, 4)]
    for file in files.values():
        file.close()
    if drawings:
        _side_by_side(drawings).save(folder / EXAMPLES, optimize=True)
    return Figures(
        parts["train"], parts["validation"], dict(groups), dict(left_out), dict(hidden),
        {str(n): lengths[n] for n in sorted(lengths)}, len(misses), max(misses, default=0.0),
        num_bytes,
    )


def _side_by_side(drawings: list[np.ndarray]) -> Image.Image:
    """Drawings in a row."""
    height = max(drawing.shape[0] for drawing in drawings)
    padded = [
        np.pad(drawing, ((0, height - len(drawing)), (0, 8), (0, 0)), constant_values=255)
        for drawing in drawings
    ]
    return Image.fromarray(np.concatenate(padded, axis=1))
