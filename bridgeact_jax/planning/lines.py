"""Files of JSON lines that several processes may add to."""

import json
import os
from pathlib import Path
from typing import Any

from bridgeact_jax.errors import UserError


def append(path: str | os.PathLike, line: str) -> None:
    """Add one line, in one piece. Raises UserError if it cannot be written."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # its writer was killed
            os.write(file, ("\n" * torn + line + "\n").encode())
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def read(path: str | os.PathLike) -> list[tuple[int, Any]]:
    """(line number from 1, value) of each line; what its writer did not finish is left out.

    Raises UserError if the file cannot be read or holds something else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file: must hold JSON lines") from None
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append((number, json.loads(line)))
        except (ValueError, RecursionError):
            if line.strip() and not line.startswith("{"):
                raise UserError(f"{path}: line {number} is not JSON") from None
    return values
