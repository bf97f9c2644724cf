"""Messages: what is packed comes back, openpi's form to the byte, and nothing odd gets in."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bridgeact_jax.serving import wire

DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", ">f4"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=5))
)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
messages = st.dictionaries(
    st.text(max_size=8), scalars | arrays | st.lists(scalars, max_size=4), max_size=6
)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and one.tobytes() == other.tobytes()
    return one == other or one != one and other != other


@given(messages)
def test_what_is_packed_comes_back(message):
    assert same(message, wire.unpack(wire.pack(message)))


def test_an_array_and_a_scalar_are_written_as_openpi_writes_them():
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw = msgpack.unpackb(wire.pack({"a": value, "b": np.float16(0.5)}))
    assert raw == {
        "a": {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": "<f4", b"shape": [2, 3]},
        "b": {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f2"},
    }


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(data):
    try:
        wire.unpack(data)
    except wire.WireError:
        pass


def array(**changed):
    fields = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]} | changed
    return msgpack.packb({key.encode(): value for key, value in fields.items()})


def nested(depth, leaf):
    for _ in range(depth):
        leaf = [leaf]
    return leaf


HOSTILE = {
    "an object": array(dtype="|O"),
    "a pickled dtype": array(dtype="V8"),
    "a structured dtype": array(dtype="f4,f4"),
    "a string dtype": array(dtype="<U2"),
    "a complex dtype": array(dtype="<c8"),
    "a dtype that is a number": array(dtype=7),
    "too few bytes": array(data=b"\0" * 4),
    "too many bytes": array(data=b"\0" * 12),
    "bytes that are text": array(data="12345678"),
    "a negative size": array(shape=[-2]),
    "two negative sizes": array(shape=[-1, -2]),
    "a shape that is a number": array(shape=2),
    "a size that is true": array(shape=[True, 2]),
    "an enormous empty shape": array(shape=[0, 2**40], data=b""),
    "too many axes": array(shape=[2, 1, 1, 1, 1]),
    "a field too many": array(more=1),
    "a scalar that is none": msgpack.packb({b"__npgeneric__": 1, b"data": [], b"dtype": "<f4"}),
    "a scalar too large": msgpack.packb({b"__npgeneric__": 1, b"data": 300, b"dtype": "|u1"}),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "a timestamp": msgpack.packb(msgpack.Timestamp(1)),
    "a byte key": msgpack.packb({b"position": 1}),
    "a number as key": msgpack.packb({1: 1}),
    "bytes": msgpack.packb({"a": b"x"}),
    "too deep": msgpack.packb(nested(20, 1)),
    "far too deep": b"\x91" * 100_000 + b"\x01",
    "too many items": msgpack.packb([[0] * 200] * 200),
    "a long list": msgpack.packb([0] * 100_000),
    "a long text": msgpack.packb("x" * 100_000),
    "a list that ends early": b"\xdd\xff\xff\xff\xff",
    "a text that is no UTF-8": b"\xa2\xff\xff",
    "two messages": b"\x01\x01",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_odd_is_refused(name):
    with pytest.raises(wire.WireError) as error:
        wire.unpack(HOSTILE[name])
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    "value", [object(), {"a": np.array([None])}, np.array(["text"]), np.complex64(1), {1, 2}]
)
def test_what_cannot_travel_is_not_sent(value):
    with pytest.raises(wire.WireError, match="cannot be written"):
        wire.pack(value)
