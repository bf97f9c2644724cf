"""Where a conversion keeps its finished parts until the store is complete.

    OUT.partial/job.json    the inputs the parts were made from
    OUT.partial/parts/      the parts
    OUT.partial/store/      the store, while it is put together

Whatever ends a run, the next one with the same inputs goes on from the finished parts.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from bridgeact_jax.datasets import files
from bridgeact_jax.datasets.store import MANIFEST
from bridgeact_jax.errors import UserError

JOB = "job.json"
PUBLISHED = "published"


class Workspace:
    """The folder OUT.partial of one conversion; see `open_workspace`.

    For a remote OUT it is a folder of the user's cache.
    """

    def __init__(self, out: str | os.PathLike):
        self.out = str(out) if files.is_remote(out) else os.path.abspath(out)
        if files.is_remote(out):
            self.folder = files.cache_folder("convert", self.out)
        else:
            self.folder = pathlib.Path(f"{self.out}.partial")
        self.parts = self.folder / "parts"
        self.store = self.folder / "store"
        self._replaced = self.folder / "replaced"

    def finished(self) -> int:
        """How many parts are finished."""
        return sum("." not in path.name for path in self.parts.glob("*"))

    def prepare(self, job: dict[str, Any]) -> None:
        """Keep the parts that were made from the inputs `job`; remove everything else."""
        before = self._job()
        if before is not None and before != job and self.finished():
            changed = ", ".join(key for key in job if before.get(key) != job[key])
            print(f"note: {self.folder} was made with another {changed}: starting afresh",
                  file=sys.stderr)
        if before != job:
            shutil.rmtree(self.parts, ignore_errors=True)
            (self.folder / JOB).write_text(json.dumps(job, indent=2), encoding="utf-8")
        (self.folder / PUBLISHED).unlink(missing_ok=True)
        self.parts.mkdir(exist_ok=True)
        for leftover in (self.store, *self.parts.glob("*.*")):
            shutil.rmtree(leftover, ignore_errors=True)

    def new_store(self) -> pathlib.Path:
        """An empty folder for the store."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        return self.store

    def publish(self) -> None:
        """Move the store to `out`, in place of what is there, and remove the workspace."""
        if files.is_remote(self.out):
            files.remove_folder(self.out)
            files.upload_folder(self.store, self.out, last=MANIFEST)
            self.discard()
            return
        (self.folder / PUBLISHED).touch()
        if os.path.exists(self.out):
            shutil.rmtree(self._replaced, ignore_errors=True)
            os.rename(self.out, self._replaced)
        os.rename(self.store, self.out)
        self.discard()

    def forget_published(self) -> None:
        """Remove what a run left that was ended after its store had been moved to `out`."""
        if (self.folder / PUBLISHED).exists() and not self.store.exists():
            self.discard()

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _job(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / JOB).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


@contextlib.contextmanager
def open_workspace(out: str | os.PathLike, job: dict[str, Any]) -> Iterator[Workspace]:
    """Context: the workspace for `out`, holding the parts an earlier run made from the same `job`.

    When the block fails, finished parts stay, and a note says so. Raises UserError if the folder
    cannot be written or another run is using it.
    """
    space = Workspace(out)
    try:
        space.folder.mkdir(parents=True, exist_ok=True)
        lock = open(space.folder / "lock", "w")
    except OSError as error:
        raise UserError(f"cannot write to {space.folder.parent}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{space.folder}: another process is converting to {out}") from None
        try:
            space.prepare(job)
            yield space
        except BaseException as error:
            finished = space.finished()
            if finished:
                print(f"note: finished parts are kept in {space.folder} ({finished:,}): "
                      "the same command goes on from there", file=sys.stderr)
            else:
                space.discard()
            if isinstance(error, OSError):
                raise UserError(f"cannot write to {space.folder}: {error.strerror}") from None
            raise
