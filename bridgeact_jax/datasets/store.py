"""The trajectory store: memory-mapped columns, episode offsets and a manifest in one directory.

    manifest.json     what the store holds, from where, raw column statistics, checksums
    episodes.jsonl    one line per episode: index in the source, instruction, steps
    <column>.npy      little-endian arrays, `columns.COLUMNS`

Rows are the source's, at the source's rate; episode e owns rows
episode_offsets[e]:episode_offsets[e + 1] and the keyframes
keyframe_index[keyframe_offsets[e]:keyframe_offsets[e + 1]], which count from its first row.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridgeact_jax.datasets import files
from bridgeact_jax.datasets.columns import (
    COLUMNS,
    OFFSET_COLUMNS,
    STATS_COLUMNS,
    STEP_COLUMNS,
    ColumnFiles,
    column_stats,
)
from bridgeact_jax.datasets.directories import new_directory
from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EPISODES = "episodes.jsonl"
COPIED_ROWS = 4096


class StoreBuilder:
    """Writes a store's files into an existing empty folder, in bounded memory.

    `finish` makes it a store. With `finish_columns` it stays a part, which `append_part` adds to
    another store. Use as a context manager, which closes the files.

    Args:
      with_cloud: every episode carries a cloud (else none does).
    """

    def __init__(self, folder: pathlib.Path, *, with_cloud: bool):
        self._folder = folder
        self.num_episodes = self.num_steps = self._num_keyframes = 0
        self._columns = ColumnFiles(
            folder, [name for name in COLUMNS if name != "cloud" or with_cloud]
        )
        self._episodes = open(folder / EPISODES, "w", encoding="utf-8", newline="\n")
        for name in OFFSET_COLUMNS:
            self._columns.append(name, np.zeros(1, np.int64))

    def __enter__(self) -> "StoreBuilder":
        return self

    def __exit__(self, *_: object) -> None:
        self._episodes.close()
        self._columns.close()

    def append(self, episode: Episode, keyframes: np.ndarray) -> None:
        """Add an episode and its keyframes: (Q,) ascending rows within it."""
        for name in STEP_COLUMNS:
            if name in self._columns:
                self._columns.append(name, np.asarray(getattr(episode, name)))
        self._columns.append("keyframe_index", keyframes)
        self.num_episodes += 1
        self.num_steps += len(episode)
        self._num_keyframes += len(keyframes)
        self._columns.append("episode_offsets", np.array([self.num_steps]))
        self._columns.append("keyframe_offsets", np.array([self._num_keyframes]))
        line = {
            "index": episode.index, "instruction": episode.instruction, "steps": len(episode)
        }
        self._episodes.write(json.dumps(line, ensure_ascii=False) + "\n")

    def append_part(self, folder: pathlib.Path) -> None:
        """Add the episodes of a folder that another builder wrote."""
        ends = {"episode_offsets": self.num_steps, "keyframe_offsets": self._num_keyframes}
        for name in self._columns:
            column = map_column(folder / f"{name}.npy")
            if name in ends:
                self._columns.append(name, ends[name] + column[1:])
                ends[name] += int(column[-1])
                continue
            for start in range(0, len(column), COPIED_ROWS):
                self._columns.append(name, column[start : start + COPIED_ROWS])
        lines = (folder / EPISODES).read_bytes().decode()
        self._episodes.write(lines)
        self.num_episodes += lines.count("\n")
        self.num_steps, self._num_keyframes = ends["episode_offsets"], ends["keyframe_offsets"]

    def finish_columns(self) -> dict[str, dict[str, Any]]:
        """Complete all files but the manifest; returns the manifest's entries of the columns."""
        self._episodes.close()
        return self._columns.finish()

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Complete the store: the manifest, with `facts`, which is returned."""
        columns = self.finish_columns()
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "episodes": self.num_episodes,
            "steps": self.num_steps,
            **facts,
            "stats": {
                name: column_stats(map_column(self._folder / f"{name}.npy"))
                for name in STATS_COLUMNS
            },
            "columns": columns,
        }
        content = json.dumps(manifest, indent=2, ensure_ascii=False)
        (self._folder / MANIFEST).write_text(content + "\n", encoding="utf-8")
        return manifest


class StoreWriter:
    """Context manager that streams episodes into a new store at `path`.

    The store appears complete when the block ends, or not at all. Errors: UserError if `path`
    exists and may not be replaced.
    """

    def __init__(self, path: str | os.PathLike, *, with_cloud: bool, overwrite: bool = False):
        self._directory = new_directory(path, marker=MANIFEST, overwrite=overwrite)
        self._with_cloud = with_cloud

    def __enter__(self) -> "StoreWriter":
        self._builder = StoreBuilder(self._directory.__enter__(), with_cloud=self._with_cloud)
        self._manifest: dict[str, Any] | None = None
        return self

    def append(self, episode: Episode, keyframes: np.ndarray) -> None:
        """Add an episode and its keyframes: (Q,) ascending rows within it."""
        self._builder.append(episode, keyframes)

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Close the columns, write the manifest with `facts` and return it."""
        self._manifest = self._builder.finish(**facts)
        return self._manifest

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        self._builder.__exit__()
        if kind is None and self._manifest is None:
            kind, error = RuntimeError, RuntimeError("StoreWriter.finish was not called")
            self._directory.__exit__(kind, error, None)
            raise error
        self._directory.__exit__(kind, error, traceback)


def map_column(path: pathlib.Path) -> np.ndarray:
    """The rows of a column's file, mapped read-only where there are any."""
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:  # nothing to map: no rows
        return np.load(path)


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
        with open(path / EPISODES, encoding="utf-8", newline="\n") as lines:
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

    A remote store (gs://, s3://) is copied to the user's cache once, and verified. Raises UserError
    if there is no store, its schema_version is another, or a column is missing, cut off or not as
    the manifest says.
    """
    path = _fetch(str(path)) if files.is_remote(path) else pathlib.Path(path)
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


def _fetch(url: str) -> pathlib.Path:
    """The folder in the user's cache that holds the store at `url`."""
    folder = files.cache_folder("stores", url)
    try:
        content = files.read_bytes(files.join(url, MANIFEST))
        columns = json.loads(content)["columns"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(f"{url} is no trajectory store (no {MANIFEST}): give the place that "
                        "`bridgeact convert --out` wrote") from None
    if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == content:
        return folder
    with new_directory(folder, marker=MANIFEST, overwrite=True) as partial:
        for name in (EPISODES, *(f"{column}.npy" for column in columns)):
            files.download(files.join(url, name), partial / name)
        (partial / MANIFEST).write_bytes(content)
        open_store(partial).verify()
    return folder


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
