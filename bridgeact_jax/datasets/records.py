"""Raw records of the two shard formats of RLDS datasets, verified against their checksums."""

import os
from collections.abc import Iterator

import google_crc32c
from array_record.python.array_record_module import ArrayRecordReader

from bridgeact_jax.errors import UserError

HEADER_BYTES = 12
FOOTER_BYTES = 4
DAMAGED = "the file is damaged or incomplete, fetch it again"


def read_tfrecord(path: str | os.PathLike) -> Iterator[bytes]:
    """The records of a TFRecord file, in order.

    A record is its length (uint64), the length's checksum, the data and the data's checksum, all
    little-endian; a checksum is the masked CRC-32C of tensorflow/core/lib/io/record_writer.h.
    Raises UserError naming the file, the record and its byte offset if a checksum does not match
    or the file ends inside a record.
    """
    with _open(path) as file:
        remaining = os.fstat(file.fileno()).st_size
        index = offset = 0
        while remaining > 0:
            where = f"{path}: record {index} at byte {offset}"
            if remaining < HEADER_BYTES + FOOTER_BYTES:
                raise UserError(f"{where} is cut off: {DAMAGED}")
            header = file.read(HEADER_BYTES)
            length = int.from_bytes(header[:8], "little")
            if masked_crc(header[:8]) != int.from_bytes(header[8:], "little"):
                raise UserError(f"{where}: the checksum of its length does not match: {DAMAGED}")
            if length > remaining - HEADER_BYTES - FOOTER_BYTES:
                raise UserError(f"{where} is cut off: {DAMAGED}")
            data = file.read(length)
            if masked_crc(data) != int.from_bytes(file.read(FOOTER_BYTES), "little"):
                raise UserError(f"{where}: the checksum of its data does not match: {DAMAGED}")
            yield data
            size = HEADER_BYTES + length + FOOTER_BYTES
            index, offset, remaining = index + 1, offset + size, remaining - size


def masked_crc(data: bytes) -> int:
    """CRC-32C rotated right by 15 bits plus a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_array_record(path: str | os.PathLike) -> Iterator[bytes]:
    """The records of an ArrayRecord file, in order.

    The library verifies the hashes of its chunks. Raises UserError naming the file and the record.
    """
    _open(path).close()
    index = 0
    try:
        reader = ArrayRecordReader(str(path))
        while index < reader.num_records():
            yield reader.read()
            index += 1
        reader.close()
    except (RuntimeError, IndexError, ValueError) as error:
        reason = str(error).split(";")[0].splitlines()[0]
        raise UserError(f"{path}: record {index} cannot be read ({reason}): {DAMAGED}") from None


def _open(path: str | os.PathLike):
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


READERS = {"tfrecord": read_tfrecord, "array_record": read_array_record}
