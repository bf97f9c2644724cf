"""Raw records of the two shard formats of RLDS datasets, verified against their checksums."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from bridgeact_jax.datasets.files import local_copy, open_binary
from bridgeact_jax.errors import UserError

HEADER_BYTES = 12
FOOTER_BYTES = 4
DAMAGED = "the file is damaged or incomplete, fetch it again"


def read_tfrecord(path: str | os.PathLike, start: int = 0) -> Iterator[bytes]:
    """The records of a TFRecord file from number `start` on, in order.

    A record is its length (uint64), the length's checksum, the data and the data's checksum, all
    little-endian; a checksum is the masked CRC-32C of tensorflow/core/lib/io/record_writer.h.
    The data of records before `start` is not read. Raises UserError naming the file, the record
    and its byte offset if a checksum does not match or the file ends inside a record.
    """
    with open_binary(path) as file:
        remaining = file.seek(0, os.SEEK_END)
        file.seek(0)
        index = offset = 0
        while remaining > 0:
            where = f"{path}: record {index} at byte {offset}"
            if remaining < HEADER_BYTES + FOOTER_BYTES:
                raise UserError(f"{where} is cut off: {DAMAGED}")
            header = _read(file, HEADER_BYTES, where)
            length = int.from_bytes(header[:8], "little")
            if masked_crc(header[:8]) != int.from_bytes(header[8:], "little"):
                raise UserError(f"{where}: the checksum of its length does not match: {DAMAGED}")
            size = HEADER_BYTES + length + FOOTER_BYTES
            if size > remaining:
                raise UserError(f"{where} is cut off: {DAMAGED}")
            if index < start:
                file.seek(offset + size)
            else:
                data = _read(file, length, where)
                if masked_crc(data) != int.from_bytes(_read(file, FOOTER_BYTES, where), "little"):
                    raise UserError(f"{where}: the checksum of its data does not match: {DAMAGED}")
                yield data
            index, offset, remaining = index + 1, offset + size, remaining - size


def masked_crc(data: bytes) -> int:
    """CRC-32C rotated right by 15 bits plus a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_tfrecord(data: bytes) -> bytes:
    """A record as a TFRecord file holds it: `data` with its length and both checksums."""
    length = len(data).to_bytes(8, "little")
    checksums = (masked_crc(part).to_bytes(4, "little") for part in (length, data))
    return length + next(checksums) + data + next(checksums)


class TfrecordWriter:
    """Writes a TFRecord file, record by record."""

    def __init__(self, path: str | os.PathLike):
        self._file = open(path, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(frame_tfrecord(data))

    def close(self) -> None:
        self._file.close()


def read_array_record(path: str | os.PathLike, start: int = 0) -> Iterator[bytes]:
    """The records of an ArrayRecord file from number `start` on, in order.

    The library verifies the hashes of its chunks; a remote file is copied first. Raises UserError
    naming the file and the record.
    """
    with open_binary(path):
        pass
    index = start
    with local_copy(path) as copy:
        try:
            reader = ArrayRecordReader(copy)
            if 0 < start < reader.num_records():
                reader.seek(start)
            while index < reader.num_records():
                yield reader.read()
                index += 1
            reader.close()
        except (RuntimeError, IndexError, ValueError) as error:
            reason = str(error).split(";")[0].splitlines()[0].replace(copy, str(path))
            raise UserError(
                f"{path}: record {index} cannot be read ({reason}): {DAMAGED}"
            ) from None


def _read(file: BinaryIO, size: int, where: str) -> bytes:
    try:
        data = file.read(size)
    except Exception as error:  # of the disk, or of whichever remote file system
        raise UserError(f"{where} cannot be read ({type(error).__name__}: {error})") from None
    if len(data) != size:
        raise UserError(f"{where} is cut off: {DAMAGED}")
    return data


def _array_record_writer(path: str | os.PathLike) -> ArrayRecordWriter:
    return ArrayRecordWriter(str(path), "group_size:1")  # so that any record is read on its own


READERS = {"tfrecord": read_tfrecord, "array_record": read_array_record}
WRITERS = {"tfrecord": TfrecordWriter, "array_record": _array_record_writer}
