"""The columns of an RLDS dataset: how features.json declares them, and a record's values of one."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from bridgeact_jax.datasets.tf_example import Column, MalformedExample

STEPS = "steps/"


@dataclass(frozen=True)
class ColumnSpec:
    """How a column is declared: `shape` of one value, `encoding` none, bytes or zlib.

    dtype is a numpy dtype's name, or "text", or "image": encoded pictures of the dtype `pixel`, or
    what else is not read here ("").
    """

    key: str
    dtype: str
    shape: tuple[int | None, ...]
    encoding: str = "none"
    pixel: str = ""

    @property
    def per_step(self) -> bool:
        return self.key.startswith(STEPS)


def columns_of(
    feature: Mapping[str, Any], key: str, outer: tuple[int | None, ...]
) -> Iterator[ColumnSpec]:
    """The leaves of a feature as features.json stores it (feature.proto as JSON)."""
    if "featuresDict" in feature:
        for name, inner in feature["featuresDict"].get("features", {}).items():
            yield from columns_of(inner, f"{key}/{name}" if key else name, outer)
    elif "sequence" in feature:
        sequence = feature["sequence"]
        length = int(sequence.get("length", -1))
        levels = () if key + "/" == STEPS else (*outer, None if length < 0 else length)
        yield from columns_of(sequence["feature"], key, levels)
    elif "tensor" in feature:
        tensor = feature["tensor"]
        dtype = "text" if tensor["dtype"] in ("string", "object") else tensor["dtype"]
        sizes = (int(size) for size in tensor["shape"].get("dimensions", []))
        shape = (*outer, *(None if size < 0 else size for size in sizes))
        yield ColumnSpec(key, dtype, shape, tensor.get("encoding") or "none")
    elif "text" in feature:
        yield ColumnSpec(key, "text", outer)
    elif "image" in feature:
        image = feature["image"]
        sizes = (int(size) for size in (image.get("shape") or {}).get("dimensions", []))
        shape = (*outer, *(None if size < 0 else size for size in sizes))
        encoding = image.get("encodingFormat") or "png"
        yield ColumnSpec(key, "image", shape, encoding, image.get("dtype") or "uint8")
    else:
        yield ColumnSpec(key, "image", outer)


def decode(raw: Mapping[str, Column], spec: ColumnSpec) -> np.ndarray | list[bytes]:
    """A record's values of a column: (n, *shape) of its dtype, or texts and pictures as bytes.

    Raises MalformedExample for what is not as declared.
    """
    if spec.key not in raw:
        raise MalformedExample(f"column {spec.key} is missing")
    values = raw[spec.key]
    if spec.dtype in ("text", "image"):
        if not isinstance(values, list):
            raise MalformedExample(f"column {spec.key} is not {spec.dtype}")
        return values
    dtype = _number_type(spec).newbyteorder("<")
    if isinstance(values, list):
        if spec.encoding == "none":
            raise MalformedExample(f"column {spec.key} is not numeric")
        values = np.frombuffer(_join(values, spec), dtype)
    elif len(values) and (values.dtype.kind == "f") == (dtype.kind in "biu"):
        held = "floats" if values.dtype.kind == "f" else "integers"
        raise MalformedExample(f"column {spec.key} holds {held}, not {spec.dtype}")
    size = int(np.prod(spec.shape))
    if len(values) % size:
        raise MalformedExample(f"column {spec.key} is not a multiple of {size} numbers")
    return values.reshape(-1, *spec.shape).astype(dtype.newbyteorder("="), copy=False)


def _number_type(spec: ColumnSpec) -> np.dtype:
    """bfloat16 counts, which TensorFlow Datasets stores as it stores float32."""
    try:
        dtype = np.dtype(str(spec.dtype))
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf" and dtype != ml_dtypes.bfloat16:
        raise MalformedExample(f"column {spec.key} is of no known type: {spec.dtype}")
    return dtype


def _join(values: list[bytes], spec: ColumnSpec) -> bytes:
    """The bytes of an encoded column's values, each of the size it is declared with."""
    size = int(np.prod(spec.shape)) * _number_type(spec).itemsize
    if spec.encoding == "zlib":
        try:
            values = [_inflate(value, size) for value in values]
        except zlib.error as error:
            raise MalformedExample(f"column {spec.key} does not inflate: {error}") from None
    if any(len(value) != size for value in values):
        raise MalformedExample(f"column {spec.key} has a value that is not {size} bytes")
    return b"".join(values)


def _inflate(value: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(value, size + 1)
