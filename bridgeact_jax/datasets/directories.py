"""Directories that appear at their final path complete or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from bridgeact_jax.datasets import files
from bridgeact_jax.errors import UserError


def check_new_directory(path: str | os.PathLike, *, marker: str, overwrite: bool = False) -> None:
    """Raise a UserError if `path` cannot be (over)written.

    An empty directory may always be filled. Another existing one may be overwritten only if
    `overwrite` is set and it holds the file `marker`, so that nothing foreign is ever deleted.
    """
    if files.is_remote(path):
        names = files.stamps(path).keys()
    elif os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f"{path} exists and is not a directory: choose another path")
    else:
        names = set(os.listdir(path)) if os.path.isdir(path) else set()
    if not names:
        return
    if marker not in names:
        raise UserError(f"{path} exists, is not empty and holds no {marker}: choose another path")
    if not overwrite:
        raise UserError(f"{path} exists: choose another path, or overwrite it (--overwrite)")


@contextlib.contextmanager
def new_directory(
    path: str | os.PathLike, *, marker: str, overwrite: bool = False
) -> Iterator[pathlib.Path]:
    """Context: a fresh directory beside `path` that takes its place when the block succeeds.

    An exception in the block removes the unfinished directory and leaves `path` untouched.
    Errors: those of `check_new_directory`.
    """
    path = pathlib.Path(os.path.abspath(path))
    check_new_directory(path, marker=marker, overwrite=overwrite)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from None
    try:
        yield partial
        check_new_directory(path, marker=marker, overwrite=overwrite)
        replaced = path.with_name(f"{path.name}.partial-{os.getpid()}-replaced")
        if path.exists():
            os.rename(path, replaced)
        os.rename(partial, path)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
