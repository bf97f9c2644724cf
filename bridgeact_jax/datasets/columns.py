"""The columns of a trajectory store: what they are, their files and their raw statistics."""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bridgeact_jax.datasets.episode import CLOUD_SHAPE

STATS_ROWS = 65_536
QUANTILE_ROWS = 500_000


class Layout(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    what: str


COLUMNS = {
    "episode_offsets": Layout("<i8", (), "first row of each episode, and one past the last"),
    "time": Layout("<f8", (), "seconds from the episode's start"),
    "position": Layout("<f4", (3,), "metres, base frame"),
    "rotation": Layout("<f4", (4,), "unit quaternion wxyz, base frame"),
    "gripper": Layout("<f4", (), "commanded state in [0, 1], 1 = open"),
    "gripper_width": Layout("<f4", (), "measured opening in [0, 1], NaN where not recorded"),
    "keyframe_offsets": Layout("<i8", (), "first keyframe of each episode, and one past the last"),
    "keyframe_index": Layout("<i4", (), "row within the episode"),
    "cloud": Layout("<f2", CLOUD_SHAPE, "metres, base frame; only if every episode has it"),
}
STEP_COLUMNS = ("time", "position", "rotation", "gripper", "gripper_width", "cloud")
OFFSET_COLUMNS = ("episode_offsets", "keyframe_offsets")
STATS_COLUMNS = ("position", "rotation", "gripper", "gripper_width")


class ColumnFiles:
    """The .npy files of the columns `names` in `folder`, which grow by rows."""

    def __init__(self, folder: pathlib.Path, names: Iterable[str]):
        self._files = {name: ColumnFile(folder / f"{name}.npy", COLUMNS[name]) for name in names}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def append(self, name: str, values: np.ndarray) -> None:
        """Add rows (n, *shape) to a column."""
        self._files[name].append(values)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Complete the files; returns the manifest's entry of each column."""
        return {name: file.finish() for name, file in self._files.items()}

    def close(self) -> None:
        for file in self._files.values():
            file.file.close()


class ColumnFile:
    """A .npy file whose header is written last, in the room kept for it."""

    def __init__(self, path: pathlib.Path, layout: Layout):
        self.layout = layout
        self.rows = 0
        self.file: BinaryIO = open(path, "wb")
        self._digest = hashlib.sha256()
        self._write_header()
        self._start = self.file.tell()

    def append(self, values: np.ndarray) -> None:
        if values.shape[1:] != self.layout.shape:
            raise ValueError(f"{self.file.name}: rows are {values.shape[1:]}")
        data = np.ascontiguousarray(values, self.layout.dtype).tobytes()
        self.file.write(data)
        self._digest.update(data)
        self.rows += len(values)

    def finish(self) -> dict[str, Any]:
        """Complete the file; returns its entry in the manifest (sha256 is of the numbers)."""
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self._start
        self.file.close()
        return {
            "dtype": self.layout.dtype,
            "shape": [self.rows, *self.layout.shape],
            "sha256": self._digest.hexdigest(),
        }

    def _write_header(self) -> None:
        header = {
            "descr": self.layout.dtype,
            "fortran_order": False,
            "shape": (self.rows, *self.layout.shape),
        }
        np.lib.format.write_array_header_1_0(self.file, header)


def column_stats(column: np.ndarray) -> dict[str, Any]:
    """min, max, mean, std, q01, q99 over the finite rows, per component; None if there are none.

    Rows are reduced in blocks of STATS_ROWS in their order, so that memory stays bounded and the
    result depends on the rows alone. At most QUANTILE_ROWS evenly spaced rows enter the quantiles.
    """
    count, mean, squares = 0, 0.0, 0.0
    low, high = np.inf, -np.inf
    for start in range(0, len(column), STATS_ROWS):
        rows = _finite(column[start : start + STATS_ROWS])
        if not len(rows):
            continue
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        block, total = rows.mean(axis=0), count + len(rows)
        shift = block - mean
        mean = mean + shift * (len(rows) / total)
        squares = squares + ((rows - block) ** 2).sum(axis=0)
        squares = squares + shift**2 * (count * len(rows) / total)
        count = total
    if not count:
        return dict.fromkeys(("min", "max", "mean", "std", "q01", "q99"))
    sample = _finite(column[:: max(1, -(-len(column) // QUANTILE_ROWS))])
    q01, q99 = np.quantile(sample, [0.01, 0.99], axis=0) if len(sample) else (low, high)
    stats = {
        "min": low,
        "max": high,
        "mean": mean,
        "std": np.sqrt(squares / count),
        "q01": q01,
        "q99": q99,
    }
    return {name: np.asarray(value).tolist() for name, value in stats.items()}


def _finite(rows: np.ndarray) -> np.ndarray:
    """The finite rows, as float64."""
    rows = np.asarray(rows, np.float64)
    return rows[np.isfinite(rows.reshape(len(rows), -1)).all(axis=-1)]
