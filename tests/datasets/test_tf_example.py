"""The wire format against protobuf."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_datasets.proto import tf_example_pb2

from bridgeact_jax.datasets.tf_example import MalformedExample, parse_columns, serialize_columns

floats = hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=False))
integers = hnp.arrays(np.int64, st.integers(0, 300))
texts = st.lists(st.binary(max_size=200), max_size=5)
columns = st.dictionaries(st.text(max_size=8), floats | integers | texts, max_size=5)


@given(columns)
def test_protobuf_reads_what_is_written_and_the_parser_what_protobuf_writes(columns):
    record = serialize_columns(columns)
    message = tf_example_pb2.Example.FromString(record)
    assert set(message.features.feature) == set(columns)
    parsed = parse_columns(message.SerializeToString(), columns.keys())
    for name, values in columns.items():
        feature = message.features.feature[name]
        kind = feature.WhichOneof("kind")
        by_protobuf = list(getattr(feature, kind).value)
        if isinstance(values, list):
            assert kind == "bytes_list" and by_protobuf == values == parsed[name]
        else:
            assert kind == ("float_list" if values.dtype == np.float32 else "int64_list")
            np.testing.assert_array_equal(np.array(by_protobuf, values.dtype), values)
            np.testing.assert_array_equal(parsed[name], values)


def test_unpacked_numbers_are_read():
    # float_list { value: 1.5 value: 2.5 } and int64_list { value: -1 } without packing
    floats = b"\x0d" + np.float32(1.5).tobytes() + b"\x0d" + np.float32(2.5).tobytes()
    integers = b"\x08" + b"\xff" * 9 + b"\x01"

    def entry(name, kind, body):
        feature = bytes([kind << 3 | 2, len(body)]) + body
        inner = b"\x0a\x01" + name + b"\x12" + bytes([len(feature)]) + feature
        return b"\x0a" + bytes([len(inner)]) + inner

    features = entry(b"f", 2, floats) + entry(b"i", 3, integers)
    record = b"\x0a" + bytes([len(features)]) + features
    assert dict(tf_example_pb2.Example.FromString(record).features.feature)
    parsed = parse_columns(record, ["f", "i"])
    assert parsed["f"].tolist() == [1.5, 2.5] and parsed["i"].tolist() == [-1]


def test_only_wanted_columns_are_returned():
    record = serialize_columns({"a": np.zeros(3, np.float32), "picture": [b"x" * 1000]})
    assert set(parse_columns(record, ["a", "absent"])) == {"a"}


@given(st.binary(max_size=300))
def test_arbitrary_bytes_end_in_columns_or_malformed_example(record):
    try:
        parse_columns(record, ["a", ""])
    except MalformedExample:
        pass


@given(columns, st.data())
def test_a_cut_record_never_gives_other_values(columns, data):
    record = serialize_columns(columns)
    cut = data.draw(st.integers(0, max(len(record) - 1, 0)))
    if cut == 0:
        return
    with pytest.raises(MalformedExample):
        parse_columns(record[:cut], columns.keys())
