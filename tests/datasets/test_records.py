"""TFRecord framing and ArrayRecord shards, whole and damaged."""

import os
import pathlib
import tempfile

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridgeact_jax.datasets.records import read_array_record, read_tfrecord
from bridgeact_jax.errors import UserError


def records_of(content: bytes) -> tuple[list[bytes], str]:
    """What is read before the end or the error, and the error's message."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "shard")
        path.write_bytes(content)
        try:
            for record in read_tfrecord(path):
                records.append(record)
        except UserError as error:
            return records, str(error).replace(str(path), "shard")
    return records, ""


def test_known_checksum(tmp_path):
    """A record from TensorFlow's own writer: the empty record."""
    (tmp_path / "shard").write_bytes(b"\x00" * 8 + b"\x29\x03\x98\x07" + b"\xd8\xea\x82\xa2")
    assert list(read_tfrecord(tmp_path / "shard")) == [b""]


def test_round_trip(make_frame):
    data = [b"", b"abc", os.urandom(10_000)]
    assert records_of(b"".join(map(make_frame, data))) == (data, "")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], "shard: record 1 at byte 21 is cut off"),
        (lambda whole: whole[: 21 + 5], "shard: record 1 at byte 21 is cut off"),
        (
            lambda whole: whole[:35] + b"X" + whole[36:],
            "shard: record 1 at byte 21: the checksum of its data does not match",
        ),
        (
            lambda whole: whole[:21] + b"\xff" + whole[22:],
            "shard: record 1 at byte 21: the checksum of its length does not match",
        ),
    ],
)
def test_damage_is_located(make_frame, damage, message):
    records, error = records_of(damage(make_frame(b"first") + make_frame(b"second")))
    assert records == [b"first"]
    assert error.startswith(message) and "fetch it again" in error


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_no_record(content):
    """A checksum matches by chance once in 2^32, so junk yields nothing and never hangs."""
    records, error = records_of(content)
    assert records == []
    assert bool(error) == bool(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.binary(max_size=30), min_size=1, max_size=4),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
)
def test_a_damaged_file_gives_a_true_prefix(make_frame, data, place, flip):
    whole = b"".join(map(make_frame, data))
    position = int(place * len(whole))
    damaged = whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]
    records, error = records_of(damaged)
    assert error and records == data[: len(records)]


@pytest.fixture
def array_record(tmp_path):
    path = tmp_path / "shard"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(4):
        writer.write(os.urandom(50_000))
    writer.close()
    return path


def test_array_record_reads_in_order(tmp_path):
    writer = ArrayRecordWriter(str(tmp_path / "shard"), "group_size:1")
    data = [bytes([number]) * number for number in range(5)]
    for record in data:
        writer.write(record)
    writer.close()
    assert list(read_array_record(tmp_path / "shard")) == data


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:60_000] + bytes([whole[60_000] ^ 1]) + whole[60_001:],
        lambda whole: b"junk",
        lambda whole: b"",
    ],
)
def test_damaged_array_record(array_record, damage):
    array_record.write_bytes(damage(array_record.read_bytes()))
    with pytest.raises(UserError, match=r"shard: record \d cannot be read .* fetch it again"):
        list(read_array_record(array_record))
    with pytest.raises(UserError, match="cannot read .*absent"):
        list(read_array_record(array_record.with_name("absent")))
