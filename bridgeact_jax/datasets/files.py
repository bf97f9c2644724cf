"""Files by local path or by URL (gs://, s3:// and whatever else fsspec knows)."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from bridgeact_jax.errors import UsageError, UserError, nearest

CLOUD_EXTRA = "pip install 'bridgeact_jax[cloud]'"
COPIED_BYTES = 1 << 24


def is_remote(path: str | os.PathLike) -> bool:
    """Whether `path` is a URL rather than a local path."""
    return "://" in str(path)


def join(directory: str | os.PathLike, name: str) -> str:
    """The path of `name` in a directory, both local or both remote."""
    if is_remote(directory):
        return f"{str(directory).rstrip('/')}/{name}"
    return str(pathlib.Path(directory) / name)


@contextlib.contextmanager
def open_binary(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file opened for reading; remote ones are streamed. Raises UserError naming it."""
    with contextlib.ExitStack() as stack:
        with _explained("read", path):
            if is_remote(path):
                file = _filesystem(path).open(str(path), "rb")
            else:
                file = open(path, "rb")
            stack.enter_context(file)
        yield file


def read_bytes(path: str | os.PathLike) -> bytes:
    """The whole content. Raises FileNotFoundError, or UserError for any other reason."""
    if not is_remote(path):
        return pathlib.Path(path).read_bytes()
    with _explained("read", path, absent_is_error=False):
        return _filesystem(path).cat_file(str(path))


def stamps(directory: str | os.PathLike) -> dict[str, str]:
    """{name: what changes when its content does} of a directory's files; {} if there is none."""
    if not is_remote(directory):
        try:
            entries = list(os.scandir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        facts = ((entry.name, entry.stat()) for entry in entries if entry.is_file())
        return {name: f"{fact.st_size} {fact.st_mtime_ns}" for name, fact in facts}
    with _explained("list", directory):
        try:
            entries = _filesystem(directory).ls(str(directory), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
    changing = ("ETag", "etag", "mtime", "updated", "LastModified", "created")
    return {
        pathlib.PurePosixPath(entry["name"]).name: " ".join(
            str(entry[key]) for key in ("size", *changing) if key in entry
        )
        for entry in entries
        if entry["type"] == "file"
    }


@contextlib.contextmanager
def local_copy(path: str | os.PathLike) -> Iterator[str]:
    """A local path with the file's content: a temporary copy where the file is remote."""
    if not is_remote(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="bridgeact-") as folder:
        copy = os.path.join(folder, pathlib.PurePosixPath(str(path)).name)
        download(path, copy)
        yield copy


def download(url: str | os.PathLike, path: str | os.PathLike) -> None:
    """Copy a file to a local path. Raises UserError naming it."""
    with _explained("read", url), _filesystem(url).open(str(url), "rb") as source:
        with open(path, "wb") as target:
            shutil.copyfileobj(source, target, COPIED_BYTES)


def upload_folder(folder: pathlib.Path, url: str, *, last: str) -> None:
    """Copy a local folder's files to `url`, the file `last` after all others."""
    names = sorted(path.name for path in folder.iterdir() if path.name != last)
    with _explained("write", url):
        filesystem = _filesystem(url)
        filesystem.makedirs(url, exist_ok=True)
        for name in [*names, last]:
            with open(folder / name, "rb") as source:
                with filesystem.open(join(url, name), "wb") as target:
                    shutil.copyfileobj(source, target, COPIED_BYTES)


def remove_folder(url: str) -> None:
    """Remove a remote folder and what it holds, if it is there."""
    with _explained("remove", url):
        filesystem = _filesystem(url)
        filesystem.invalidate_cache()
        if filesystem.exists(url):
            filesystem.rm(url, recursive=True)


def cache_folder(purpose: str, url: str) -> pathlib.Path:
    """The local folder in the user's cache that stands for `url`; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    label = url.rstrip("/").rsplit("/", 1)[-1]
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return pathlib.Path(home, "bridgeact_jax", purpose, f"{label}-{digest}")


def _filesystem(url: str | os.PathLike) -> Any:
    import fsspec

    protocol = str(url).split("://")[0]
    if protocol not in fsspec.available_protocols():
        hint = nearest(protocol, fsspec.available_protocols(), list_at_most=0)
        raise UsageError(f"{url}: unknown protocol '{protocol}': {hint}")
    return fsspec.filesystem(protocol)


@contextlib.contextmanager
def _explained(verb: str, path: str | os.PathLike, *, absent_is_error: bool = True):
    """Whatever goes wrong in the block as a UserError that names `path`."""
    try:
        yield
    except (UserError, NotImplementedError):
        raise
    except FileNotFoundError as error:
        if not absent_is_error:
            raise
        raise UserError(f"cannot {verb} {path}: {error.strerror or 'no such file'}") from None
    except ImportError as error:
        raise UserError(f"cannot {verb} {path}: {error}: {CLOUD_EXTRA}") from None
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"cannot {verb} {path}: {reason.splitlines()[0]}") from None
