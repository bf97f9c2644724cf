"""The trajectory store: memory-mapped columns, episode offsets and a manifest in one directory.

    manifest.json     what the store holds, from where, raw column statistics, checksums
    episodes.jsonl    one line per episode: index in the source, instruction, steps
    <column>.npy      little-endian arrays, COLUMNS below

Rows are the source's, at the source's rate; episode e owns rows
episode_offsets[e]:episode_offsets[e + 1] and the keyframes
keyframe_index[keyframe_offsets[e]:keyframe_offsets[e + 1]], which count from its first row.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bridgeact_jax.datasets.directories import new_directory
from bridgeact_jax.datasets.episode import CLOUD_SHAPE, Episode
from bridgeact_jax.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EPISODES = "episodes.jsonl"
STATS_ROWS = 2_000_000


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
STATS_COLUMNS = ("position", "rotation", "gripper", "gripper_width")


class StoreWriter:
    """Context manager that streams episodes into a new store at `path`.

    Memory stays bounded: every column goes straight to its file. The store appears complete when
    the block ends, or not at all. Errors: UserError if `path` exists and may not be replaced.

    Args:
      with_cloud: every episode carries a cloud (else none does).
    """

    def __init__(self, path: str | os.PathLike, *, with_cloud: bool, overwrite: bool = False):
        self._directory = new_directory(path, marker=MANIFEST, overwrite=overwrite)
        self._names = [name for name in COLUMNS if name != "cloud" or with_cloud]
        self.num_episodes = self.num_steps = self._num_keyframes = 0

    def __enter__(self) -> "StoreWriter":
        self._path = self._directory.__enter__()
        self._columns = {
            name: _ColumnFile(self._path / f"{name}.npy", COLUMNS[name]) for name in self._names
        }
        self._episodes = open(self._path / EPISODES, "w", encoding="utf-8")
        self._manifest: dict[str, Any] | None = None
        self._append("episode_offsets", [0])
        self._append("keyframe_offsets", [0])
        return self

    def append(self, episode: Episode, keyframes: np.ndarray) -> None:
        """Add an episode and its keyframes: (Q,) ascending rows within it."""
        for name in STEP_COLUMNS:
            if name in self._columns:
                self._append(name, getattr(episode, name))
        self._append("keyframe_index", keyframes)
        self.num_episodes += 1
        self.num_steps += len(episode)
        self._num_keyframes += len(keyframes)
        self._append("episode_offsets", [self.num_steps])
        self._append("keyframe_offsets", [self._num_keyframes])
        line = {
            "index": episode.index, "instruction": episode.instruction, "steps": len(episode)
        }
        self._episodes.write(json.dumps(line, ensure_ascii=False) + "\n")

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Close the columns, write the manifest with `facts` and return it."""
        self._episodes.close()
        columns = {name: column.close() for name, column in self._columns.items()}
        self._manifest = {
            "schema_version": SCHEMA_VERSION,
            "episodes": self.num_episodes,
            "steps": self.num_steps,
            **facts,
            "stats": {
                name: column_stats(np.load(self._path / f"{name}.npy", mmap_mode="r"))
                for name in STATS_COLUMNS
            },
            "columns": columns,
        }
        content = json.dumps(self._manifest, indent=2, ensure_ascii=False)
        (self._path / MANIFEST).write_text(content + "\n", encoding="utf-8")
        return self._manifest

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        self._episodes.close()
        for column in self._columns.values():
            column.file.close()
        if kind is None and self._manifest is None:
            kind, error = RuntimeError, RuntimeError("StoreWriter.finish was not called")
            self._directory.__exit__(kind, error, None)
            raise error
        self._directory.__exit__(kind, error, traceback)

    def _append(self, name: str, values: Any) -> None:
        self._columns[name].append(np.asarray(values))


class _ColumnFile:
    """A .npy file that grows by rows; its header is written last, in the room kept for it."""

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

    def close(self) -> dict[str, Any]:
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

    At most STATS_ROWS evenly spaced rows enter.
    """
    rows = np.asarray(column[:: max(1, -(-len(column) // STATS_ROWS))], np.float64)
    finite = rows[np.isfinite(rows.reshape(len(rows), -1)).all(axis=-1)]
    if not len(finite):
        return dict.fromkeys(("min", "max", "mean", "std", "q01", "q99"))
    q01, q99 = np.quantile(finite, [0.01, 0.99], axis=0)
    stats = {
        "min": finite.min(axis=0),
        "max": finite.max(axis=0),
        "mean": finite.mean(axis=0),
        "std": finite.std(axis=0),
        "q01": q01,
        "q99": q99,
    }
    return {name: value.tolist() for name, value in stats.items()}


class TrajectoryStore:
    """An opened store. `columns` maps names to read-only memory-mapped arrays (see COLUMNS)."""

    def __init__(
        self,
        path: pathlib.Path,
        manifest: Mapping[str, Any],
        columns: Mapping[str, np.ndarray],
    ):
        self.path = path
        self.manifest = manifest
        self.columns = columns
        self.num_episodes: int = manifest["episodes"]
        lines = (path / EPISODES).read_text(encoding="utf-8").splitlines()
        self._facts = [json.loads(line) for line in lines]

    def episode(self, number: int) -> Episode:
        """Episode `number` of this store (its `index` is that in the source)."""
        start, stop = self.columns["episode_offsets"][number : number + 2]
        facts = self._facts[number]
        return Episode(
            **{
                name: self.columns[name][start:stop]
                for name in STEP_COLUMNS
                if name in self.columns
            },
            instruction=facts["instruction"],
            index=facts["index"],
        )

    def keyframes(self, number: int) -> np.ndarray:
        """(Q,) rows of the keyframes within episode `number`."""
        start, stop = self.columns["keyframe_offsets"][number : number + 2]
        return self.columns["keyframe_index"][start:stop]

    def verify(self) -> None:
        """Read every column and raise UserError if one differs from its checksum."""
        for name, column in self.columns.items():
            digest = hashlib.sha256()
            for start in range(0, len(column), 4096):
                digest.update(np.ascontiguousarray(column[start : start + 4096]))
            if digest.hexdigest() != self.manifest["columns"][name]["sha256"]:
                raise UserError(
                    f"{self.path / name}.npy differs from the checksum in {MANIFEST}: "
                    "convert the dataset again"
                )


def open_store(path: str | os.PathLike) -> TrajectoryStore:
    """Open the store at `path`; columns are mapped, not read.

    Raises UserError if there is no store, its schema_version is another, or a column is missing,
    cut off or not as the manifest says.
    """
    path = pathlib.Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is no trajectory store (no {MANIFEST}): give the folder that "
                        "`bridgeact convert --out` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / MANIFEST} is not a store's manifest ({error})") from None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has schema_version {version}, this program reads "
                        f"{SCHEMA_VERSION}: convert the dataset again")
    try:
        columns = {
            name: _open_column(path / f"{name}.npy", entry)
            for name, entry in manifest["columns"].items()
        }
        missing = [name for name in COLUMNS if name not in columns and name != "cloud"]
        if missing:
            raise UserError(f"{path / MANIFEST} lists no column '{missing[0]}': convert again")
        return TrajectoryStore(path, manifest, columns)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): convert the dataset again") from None


def _open_column(path: pathlib.Path, entry: Mapping[str, Any]) -> np.ndarray:
    shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
    if not path.is_file():
        raise UserError(f"{path} is missing: convert the dataset again")
    if 0 in shape:
        column = np.load(path)
    else:
        try:
            column = np.load(path, mmap_mode="r")
        except (ValueError, EOFError):
            raise UserError(f"{path} is cut off or no .npy file: convert the dataset "
                            "again") from None
    if column.shape != shape or column.dtype != dtype:
        raise UserError(
            f"{path} holds {column.dtype}{column.shape} where {MANIFEST} says {dtype}{shape}: "
            "convert the dataset again"
        )
    return column
