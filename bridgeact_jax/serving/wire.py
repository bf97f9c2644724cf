"""Messages as bytes: msgpack with NumPy arrays, as the public `openpi-client` writes them.

An array is a map of four byte keys (`__ndarray__`, `data`, `dtype`, `shape`), a NumPy scalar one of
three (`__npgeneric__`, `data`, `dtype`). Only numbers and booleans travel in arrays: nothing that
is read can run code, and what is read costs memory in proportion to its bytes.
"""

import math
import re
from typing import Any

import msgpack
import numpy as np

from bridgeact_jax.errors import UserError

LONGEST_TEXT = 8192  # bytes of a string
MOST_ITEMS = 256  # of one list or map
MOST_ITEMS_IN_ALL = 4096  # of all lists and maps of a message
DEEPEST = 8  # lists and maps inside each other
_MOST_AXES = 4

_NUMBERS = re.compile(r"[<>|=]?([bui]1|[ui][248]|f[248])")
_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"


class WireError(UserError):
    """The bytes are no message."""


def pack(value: Any) -> bytes:
    """The message of nested dicts and lists of numbers, strings, arrays. Raises WireError."""
    try:
        return msgpack.packb(value, default=_packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a message cannot be written: {error}") from None


def unpack(data: bytes) -> Any:
    """The value of a message; its arrays are read-only. Raises WireError for anything odd."""
    items = 0

    def counted(container: list | dict) -> Any:
        nonlocal items
        items += len(container)
        if items > MOST_ITEMS_IN_ALL:
            raise WireError(f"a message has more than {MOST_ITEMS_IN_ALL} items: send arrays")
        return _unpacked(container) if isinstance(container, dict) else container

    try:
        value = msgpack.unpackb(
            data,
            object_hook=counted,
            list_hook=counted,
            max_str_len=LONGEST_TEXT,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
            max_ext_len=0,
        )
    except WireError:
        raise
    except Exception as error:  # msgpack's own kinds, and ValueError and its like
        raise WireError(f"a message is no msgpack ({type(error).__name__})") from None
    _check(value, DEEPEST)
    return value


def _packed(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} is none of the kinds that can be sent")
    if not _NUMBERS.fullmatch(value.dtype.str):
        raise TypeError(f"an array of {value.dtype}: must be numbers or booleans")
    if isinstance(value, np.ndarray):
        head = {_ARRAY: True, b"data": value.tobytes()}
        return {**head, b"dtype": value.dtype.str, b"shape": value.shape}
    return {_SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}


def _unpacked(fields: dict) -> Any:
    if _ARRAY in fields:
        return _array(fields)
    if _SCALAR in fields:
        _expect_keys(fields, {_SCALAR, b"data", b"dtype"})
        if not isinstance(fields[b"data"], bool | int | float):
            raise WireError("a scalar of a message is no number")
        try:
            return _dtype(fields).type(fields[b"data"])
        except (OverflowError, ValueError):
            raise WireError("a scalar of a message does not fit its dtype") from None
    return fields


def _array(fields: dict) -> np.ndarray:
    _expect_keys(fields, {_ARRAY, b"data", b"dtype", b"shape"})
    dtype, shape, data = _dtype(fields), fields[b"shape"], fields[b"data"]
    if not isinstance(shape, list) or len(shape) > _MOST_AXES:
        raise WireError(f"an array's shape is no list of at most {_MOST_AXES} sizes")
    if any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
        raise WireError("an array's shape has a size that is none")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise WireError(f"an array of shape {shape} {dtype} does not have the bytes for it")
    return np.ndarray(shape, dtype, data)


def _dtype(fields: dict) -> np.dtype:
    name = fields[b"dtype"]
    if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
        raise WireError("an array's dtype is none of numbers or booleans")
    return np.dtype(name)


def _expect_keys(fields: dict, wanted: set[bytes]) -> None:
    if set(fields) != wanted:
        raise WireError("an array of a message lacks a field, or has one too many")


def _check(value: Any, depth: int) -> None:
    """Raises WireError for what is nested too deeply or of a kind that is not sent."""
    if isinstance(value, list | dict):
        if depth == 0:
            raise WireError(f"a message is nested more than {DEEPEST} deep")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise WireError("a message has a key that is no text")
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth - 1)
    elif not isinstance(value, str | int | float | None | np.ndarray | np.generic):
        raise WireError(f"a message holds {type(value).__name__}, which is not sent")
