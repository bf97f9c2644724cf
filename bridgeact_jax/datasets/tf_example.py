"""The tf.Example wire format, column by column, without protobuf or TensorFlow.

An RLDS episode is one tf.Example: a map from a column's name to a list of bytes, floats or
integers. Pictures are most of its bytes. Reading walks the map's entries and touches only the
values of the columns asked for; packed floats become an array without a copy.

Format: https://protobuf.dev/programming-guides/encoding and tensorflow/core/example/*.proto
(Example.features = 1; Features.feature = 1, a map entry of key = 1, value = 2;
Feature.bytes_list = 1, float_list = 2, int64_list = 3; each list's value = 1).
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3

Column = np.ndarray | list[bytes]


class MalformedExample(ValueError):
    """The bytes are no tf.Example."""


def parse_columns(record: bytes, names: Collection[str]) -> dict[str, Column]:
    """The columns called `names` of a serialised tf.Example.

    Returns {name: float32 array, int64 array or list of bytes}, flat, in file order; a name
    the record does not hold is left out. Raises MalformedExample.
    """
    wanted = {name.encode(): name for name in names}
    columns: dict[str, Column] = {}
    for field, features in _fields(memoryview(record)):
        if field != 1:
            continue
        for field, entry in _fields(features):
            if field != 1:
                continue
            key, value = b"", memoryview(b"")
            for field, part in _fields(entry):
                if field == 1:
                    key = bytes(part)
                elif field == 2:
                    value = part
            if key in wanted:
                columns[wanted[key]] = _parse_feature(value)
    return columns


def serialize_columns(columns: Mapping[str, Column]) -> bytes:
    """A serialised tf.Example of float arrays, integer or bool arrays, and lists of bytes."""
    entries = []
    for name, values in columns.items():
        if isinstance(values, list):
            kind = BYTES_LIST
            body = b"".join(_tagged(1, value) for value in values)
        elif values.dtype.kind == "f":
            kind = FLOAT_LIST
            body = _tagged(1, values.astype("<f4").tobytes())
        elif values.dtype.kind in "iub":
            kind = INT64_LIST
            body = _tagged(1, _encode_varints(values))
        else:
            raise TypeError(f"column {name}: tf.Example holds no {values.dtype}")
        feature = _tagged(kind, body)
        entries.append(_tagged(1, _tagged(1, name.encode()) + _tagged(2, feature)))
    return _tagged(1, b"".join(entries))


def _parse_feature(feature: memoryview) -> Column:
    column: Column = np.zeros(0, np.float32)
    for kind, body in _fields(feature):
        if kind == BYTES_LIST:
            column = [bytes(value) for field, value in _fields(body) if field == 1]
        elif kind == FLOAT_LIST:
            chunks = [value for field, value in _fields(body) if field == 1]
            if any(len(chunk) % 4 for chunk in chunks):
                raise MalformedExample("a list of floats is not a multiple of 4 bytes")
            column = _concatenate([np.frombuffer(chunk, "<f4") for chunk in chunks], np.float32)
        elif kind == INT64_LIST:
            chunks = [_decode_varints(value) for field, value in _fields(body) if field == 1]
            column = _concatenate(chunks, np.int64)
    return column


def _concatenate(chunks: list[np.ndarray], dtype: type) -> np.ndarray:
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, payload) of each field; a varint's payload is its undecoded bytes."""
    position, end = 0, len(message)
    while position < end:
        tag = message[position]  # nearly always of one byte
        if tag < 0x80:
            position += 1
        else:
            tag, position = _varint(message, position)
        wire_type = tag & 7
        start = position
        if wire_type == LENGTH:
            if position < end and message[position] < 0x80:
                length, start = message[position], position + 1
            else:
                length, start = _varint(message, position)
            position = start + length
        elif wire_type == VARINT:
            _, position = _varint(message, position)
        elif wire_type == FIXED32:
            position = start + 4
        elif wire_type == FIXED64:
            position = start + 8
        else:
            raise MalformedExample(f"unknown wire type {wire_type}")
        if position > end:
            raise MalformedExample("a field reaches past its message")
        yield tag >> 3, message[start:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise MalformedExample("an integer is cut off")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise MalformedExample("an integer is longer than 64 bits")


def _decode_varints(packed: memoryview) -> np.ndarray:
    """int64 values of consecutive varints (two's complement, at most 10 bytes each)."""
    data = np.frombuffer(packed, np.uint8)
    last = data < 0x80
    if len(data) and not last[-1]:
        raise MalformedExample("an integer is cut off")
    ends = np.flatnonzero(last)
    if len(ends) == len(data):  # flags and small counts
        return data.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= 10:
        raise MalformedExample("an integer is longer than 64 bits")
    shift = 7 * (np.arange(len(data)) - np.repeat(starts, ends - starts + 1))
    parts = (data & 0x7F).astype(np.uint64) << shift.astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)


def _encode_varints(values: np.ndarray) -> bytes:
    return b"".join(_varint_bytes(int(value) & 0xFFFFFFFFFFFFFFFF) for value in values.flat)


def _varint_bytes(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _tagged(field: int, payload: bytes) -> bytes:
    return _varint_bytes(field << 3 | LENGTH) + _varint_bytes(len(payload)) + payload
