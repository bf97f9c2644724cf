"""The parts of a conversion: what they are, and how one is made.

A part is a run of consecutive episodes of one shard, decided by the dataset alone. It is made by
one process into a folder of its own, which appears complete or not at all, and is then added to
the store in order: so neither the number of processes nor an interruption changes the store.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from bridgeact_jax.datasets import files
from bridgeact_jax.datasets.cards import Card
from bridgeact_jax.datasets.episode import RejectedEpisode
from bridgeact_jax.datasets.reading import EpisodeReader, Reading
from bridgeact_jax.datasets.rlds_reader import RldsDataset, open_rlds
from bridgeact_jax.datasets.rotation_check import no_evidence
from bridgeact_jax.datasets.store import StoreBuilder, map_column
from bridgeact_jax.errors import UserError

PART_EPISODES = 128
CHUNK_EPISODES = 64
CHUNK_STEPS = 4096
REPORT = "part.json"
KEYFRAME_TOLERANCE = 0.01
MAX_KEYFRAMES = (16, 64, 256)
TOO_WINDING = (
    f"{MAX_KEYFRAMES[-1]} keyframes do not describe the path within {KEYFRAME_TOLERANCE} m"
)


class Part(NamedTuple):
    """Episodes start..stop - 1 of a shard, the split's episode `first` and those after it.

    `stamp` changes when the shard's content does.
    """

    number: int
    shard: int
    start: int
    stop: int
    first: int
    stamp: str


@dataclass(frozen=True)
class Job:
    """What the parts of one conversion share; `parts` is the folder or URL they go to.

    `fingerprint` tells one conversion's inputs from another's.
    """

    rlds: str
    split: str
    card: Card = field(compare=False)
    clouds: bool
    parts: str
    fingerprint: str


def plan_parts(dataset: RldsDataset, split: str) -> list[Part]:
    """The parts of a split, in the order of its episodes."""
    shards = dataset.split(split)
    stamp_of = files.stamps(dataset.directory)
    parts: list[Part] = []
    first = 0
    for shard, length in enumerate(shards.lengths):
        name = os.path.basename(shards.files[shard])
        stamp = f"{name} {stamp_of[name]}"
        for start in range(0, max(length, 1), PART_EPISODES):
            stop = min(start + PART_EPISODES, length)
            parts.append(Part(len(parts), shard, start, stop, first + start, stamp))
        first += length
    return parts


def finished_part(job: Job, part: Part) -> dict[str, Any] | None:
    """The report of a part made before from the same shard, or None if it must be made."""
    folder = _folder(job, part)
    try:
        report = json.loads(files.read_bytes(files.join(folder, REPORT)))
        if report["source"] != part.stamp:
            return None
        if not files.is_remote(folder):  # a power cut may have cut its files
            for name, entry in report["columns"].items():
                if list(map_column(pathlib.Path(folder, f"{name}.npy")).shape) != entry["shape"]:
                    return None
        return report
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def local_part(job: Job, part: Part) -> Iterator[pathlib.Path]:
    """Context: a local folder that holds a finished part."""
    folder = _folder(job, part)
    if not files.is_remote(folder):
        yield pathlib.Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="bridgeact-") as copy:
        for name in files.stamps(folder):
            files.download(files.join(folder, name), os.path.join(copy, name))
        yield pathlib.Path(copy)


def make_part(job: Job, part: Part) -> dict[str, Any]:
    """Convert a part's episodes into its folder and return its report.

    The report holds `episodes`, `steps`, `bytes` (of the records read), `rejected` (index and
    reason of each episode left out), `flagged` (index and flags of those that are odd), `evidence`
    (sums for the rotation check), `source` (the shard's stamp) and `columns`. Raises UserError for
    a damaged shard or a full disk.
    """
    final = _folder(job, part)
    try:
        if files.is_remote(final):
            with tempfile.TemporaryDirectory(prefix="bridgeact-") as scratch:
                report = _fill(job, part, pathlib.Path(scratch))
                files.upload_folder(pathlib.Path(scratch), final, last=REPORT)
                return report
        folder = pathlib.Path(f"{final}.{os.getpid()}-{threading.get_ident()}")
        try:
            folder.mkdir(parents=True)
            report = _fill(job, part, folder)
            if finished_part(job, part) is None:  # else a process that outlived its owner made it
                shutil.rmtree(final, ignore_errors=True)
                os.rename(folder, final)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {final}: {error.strerror}") from None
    return report


def _folder(job: Job, part: Part) -> str:
    return files.join(job.parts, f"{part.number:06d}")


@lru_cache(maxsize=1)
def _opened(job: Job) -> tuple[RldsDataset, EpisodeReader]:
    dataset = open_rlds(job.rlds)
    return dataset, EpisodeReader(dataset, job.card, job.split, clouds=job.clouds)


def _fill(job: Job, part: Part, folder: pathlib.Path) -> dict[str, Any]:
    from bridgeact_jax.datasets.keyframing import keyframes_of  # imports JAX

    dataset, reader = _opened(job)
    records = _Counted(dataset.records(job.split, part.shard, part.start, part.stop))
    rejected: dict[int, str] = {}
    flagged: list[dict[str, Any]] = []
    evidence = no_evidence(reader.card)
    with StoreBuilder(folder, with_cloud=reader.with_cloud) as builder:
        for chunk in _chunks(reader, records, part.first, rejected):
            episodes = [reading.episode for reading in chunk]
            found = keyframes_of(episodes, MAX_KEYFRAMES, KEYFRAME_TOLERANCE)
            for reading, keyframes in zip(chunk, found, strict=True):
                if keyframes is None:
                    rejected[reading.index] = TOO_WINDING
                    continue
                builder.append(reading.episode, keyframes)
                if reading.flags:
                    flagged.append({"index": reading.index, "flags": reading.flags})
                if reading.evidence is not None:
                    evidence += reading.evidence
        columns = builder.finish_columns()
    report = {
        "source": part.stamp,
        "episodes": builder.num_episodes,
        "steps": builder.num_steps,
        "bytes": records.bytes,
        "rejected": [{"index": index, "reason": rejected[index]} for index in sorted(rejected)],
        "flagged": flagged,
        "evidence": evidence.tolist(),
        "columns": columns,
    }
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    return report


class _Counted:
    """Passes records on and counts their `bytes`."""

    def __init__(self, records: Iterator[bytes]):
        self.bytes = 0
        self._records = records

    def __iter__(self) -> Iterator[bytes]:
        for record in self._records:
            self.bytes += len(record)
            yield record


def _chunks(
    reader: EpisodeReader, records: Iterable[bytes], first: int, rejected: dict[int, str]
) -> Iterator[list[Reading]]:
    """The records' episodes in lists of bounded size; adds {index: reason} to `rejected`."""
    chunk: list[Reading] = []
    steps = 0
    for index, record in enumerate(records, first):
        try:
            chunk.append(reader.read(record, index))
        except RejectedEpisode as reason:
            rejected[index] = str(reason)
            continue
        steps += len(chunk[-1].episode)
        if len(chunk) == CHUNK_EPISODES or steps >= CHUNK_STEPS:
            yield chunk
            chunk, steps = [], 0
    if chunk:
        yield chunk
