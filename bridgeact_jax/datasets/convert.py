"""`bridgeact convert`: an RLDS dataset, read through its card, to a trajectory store."""

import collections
import contextlib
import hashlib
import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from absl import flags

from bridgeact_jax import __version__
from bridgeact_jax.datasets import beam_runner, files
from bridgeact_jax.datasets.cards import Card, card_paths, find_card, load_card
from bridgeact_jax.datasets.directories import check_new_directory
from bridgeact_jax.datasets.parts import (
    KEYFRAME_TOLERANCE,
    Job,
    Part,
    finished_part,
    local_part,
    make_part,
    plan_parts,
)
from bridgeact_jax.datasets.reading import EpisodeReader
from bridgeact_jax.datasets.rlds_reader import RldsDataset, open_rlds
from bridgeact_jax.datasets.rotation_check import judge, no_evidence
from bridgeact_jax.datasets.store import MANIFEST, SCHEMA_VERSION, StoreBuilder
from bridgeact_jax.datasets.workspace import Workspace, open_workspace
from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.progress import Progress
from bridgeact_jax.workers import map_in_processes


def convert_dataset(
    rlds: str | os.PathLike,
    out: str | os.PathLike,
    *,
    card: str | os.PathLike | None = None,
    split: str = "train",
    overwrite: bool = False,
    clouds: bool = False,
    workers: int = 1,
    max_rejected: float = 0.5,
    runner: str = "local",
    beam_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Convert a split of the RLDS directory `rlds` into a new store at `out`; both may be URLs.

    Args:
      card: a card's name or TOML file; by default the card that lists the dataset's name.
      overwrite: replace an existing store.
      clouds: store a point cloud for every step, which the card must say how to make.
      workers: processes; with one the work is done in this process.
      max_rejected: how many episodes may be left out; below 1 a share of the split's.
      runner: "local", or "beam" for an Apache Beam pipeline, to which `beam_options` go.

    Returns the manifest. An episode that cannot be used is left out, and one that is odd flagged;
    the manifest says which and why. The store's bytes depend neither on `workers` and `runner` nor
    on runs that were ended before: the finished parts of such a run are kept in OUT.partial, and
    the same call goes on from there.
    Raises UsageError or UserError, leaving nothing at `out`.
    """
    Workspace(out).forget_published()
    check_new_directory(out, marker=MANIFEST, overwrite=overwrite)
    dataset = open_rlds(rlds)
    chosen = load_card(card) if card else _card_for(dataset)
    with_cloud = EpisodeReader(dataset, chosen, split, clouds=clouds).with_cloud
    parts = plan_parts(dataset, split)
    inputs = _inputs(dataset, chosen, split, clouds)
    opened = [inputs, dataset.split(split).files]
    fingerprint = hashlib.sha256(json.dumps(opened).encode()).hexdigest()
    with open_workspace(out, inputs) as space:
        shared = runner == "beam" and files.is_remote(out)  # else the workers' disk will do
        folder = f"{out}.partial/{fingerprint[:16]}" if shared else str(space.parts)
        job = Job(str(rlds), split, chosen, clouds, folder, fingerprint)
        if runner == "beam":
            make = partial(beam_runner.make_parts, job, options=beam_options)
        else:
            make = partial(_make_in_processes, job, workers)
        allowance = _Allowance(dataset, chosen, split, max_rejected)
        reports = _all_reports(job, parts, make, allowance)
        if not any(report["episodes"] for report in reports):
            space.discard()
            raise UserError(allowance.all_rejected())
        with StoreBuilder(space.new_store(), with_cloud=with_cloud) as builder:
            for part in parts:
                with local_part(job, part) as made:
                    builder.append_part(made)
            manifest = builder.finish(**_facts(dataset, chosen, split, reports))
        check_new_directory(out, marker=MANIFEST, overwrite=overwrite)
        space.publish()
        if shared:
            files.remove_folder(f"{out}.partial")
    return manifest


def _make_in_processes(
    job: Job, workers: int, parts: Sequence[Part]
) -> Iterator[dict[str, Any]]:
    return map_in_processes(partial(make_part, job), parts, workers, one_thread=True)


def _all_reports(
    job: Job,
    parts: Sequence[Part],
    make: Callable[[Sequence[Part]], Iterator[dict[str, Any]]],
    allowance: "_Allowance",
) -> list[dict[str, Any]]:
    """The reports of all parts, in order; `make` makes those that are not finished."""
    reports = {part: finished_part(job, part) for part in parts}
    missing = [part for part in parts if reports[part] is None]
    done = [report for report in reports.values() if report is not None]
    for report in done:
        allowance.count(report)
    before = sum(_episodes_in(report) for report in done)
    total = sum(part.stop - part.start for part in parts)
    with (
        Progress(total, "episodes", "convert", done=before) as progress,
        contextlib.closing(make(missing)) as made,
    ):
        for part, report in zip(missing, made, strict=True):
            reports[part] = report
            allowance.count(report)
            progress.update(
                _episodes_in(report), num_bytes=report["bytes"], rejected=allowance.rejected
            )
    return [reports[part] for part in parts]


def _episodes_in(report: dict[str, Any]) -> int:
    return report["episodes"] + len(report["rejected"])


class _Allowance:
    """Counts rejected episodes; `count` raises a UserError once there are more than permitted."""

    def __init__(self, dataset: RldsDataset, card: Card, split: str, limit: float):
        self._dataset, self._card, self._limit = dataset, card, limit
        self._total = dataset.split(split).num_episodes
        self._most = limit * self._total if limit < 1 else limit
        self._reasons: collections.Counter[str] = collections.Counter()
        self._seen = 0

    @property
    def rejected(self) -> int:
        return self._reasons.total()

    def count(self, report: dict[str, Any]) -> None:
        self._seen += _episodes_in(report)
        self._reasons.update(entry["reason"] for entry in report["rejected"])
        if self._most < self.rejected < self._total:
            raise UserError(
                f"{self._dataset.directory}: {self.rejected:,} of the first {self._seen:,} "
                f"episodes were rejected, more than --max_rejected={self._limit:g} permits: "
                f"{self._counts()}"
            )

    def all_rejected(self) -> str:
        return (
            f"{self._dataset.directory}: all {self._total:,} episodes were rejected: "
            f"{self._counts()}; check the conventions in {self._card.path}"
        )

    def _counts(self) -> str:
        return ", ".join(f"{reason} ({count:,})" for reason, count in self._reasons.most_common())


def _inputs(dataset: RldsDataset, card: Card, split: str, clouds: bool) -> dict[str, Any]:
    """What the parts are made from, apart from the shards, of which each part has a stamp."""
    return {
        "program": f"{__version__}, schema {SCHEMA_VERSION}",
        "card": card.sha256,
        "split": split,
        "clouds": clouds,
        **{
            name: hashlib.sha256(files.read_bytes(files.join(dataset.directory, name))).hexdigest()
            for name in ("dataset_info.json", "features.json")
        },
    }


def _facts(
    dataset: RldsDataset, card: Card, split: str, reports: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What the manifest says besides the counts, the statistics and the columns."""
    rejected = [entry for report in reports for entry in report["rejected"]]
    flagged = [entry for report in reports for entry in report["flagged"]]
    evidence = no_evidence(card)
    for report in reports:  # in order: sums of floats depend on it
        evidence += np.array(report["evidence"])
    return {
        "card": card.name,
        "card_sha256": card.sha256,
        "base_z_up": card.base_z_up,
        "tool_frame": card.tool_frame,
        "source": {
            "dataset": dataset.name,
            "version": dataset.version,
            "split": split,
            "files": [os.path.basename(file) for file in dataset.splits[split].files],
        },
        "rejected": dict(collections.Counter(entry["reason"] for entry in rejected)),
        "rejected_episodes": rejected,
        "flagged": dict(collections.Counter(flag for entry in flagged for flag in entry["flags"])),
        "flagged_episodes": flagged,
        "recorded": card.recorded,
        "rotation_check": judge(card, evidence),
        "keyframe_tolerance": KEYFRAME_TOLERANCE,
    }


def _card_for(dataset: RldsDataset) -> Card:
    card = find_card(dataset.name)
    if card is None:
        raise UsageError(
            f"no card lists the dataset '{dataset.name}' ({dataset.directory}); give --card: "
            f"{nearest(dataset.name, card_paths())}"
        )
    return card


def define_flags() -> None:
    what = "RLDS directory or URL (holds dataset_info.json)"
    flags.DEFINE_string("rlds", None, what, required=True)
    flags.DEFINE_string("card", None, "card's name or .toml file; default: by the dataset's name")
    flags.DEFINE_string("split", "train", "split to convert")
    flags.DEFINE_string("out", None, "directory or URL of the new store", required=True)
    flags.DEFINE_boolean("clouds", False, "store a point cloud for every step, for stage 2")
    flags.DEFINE_boolean("overwrite", False, "replace an existing store")
    flags.DEFINE_integer("workers", os.cpu_count(), "processes", lower_bound=1)
    flags.DEFINE_enum("runner", "local", ["local", "beam"], "who makes the parts")
    flags.DEFINE_string("beam_options", "", "options for Apache Beam, as one text")
    flags.DEFINE_float(
        "max_rejected",
        0.5,
        "give up when more episodes than this are rejected: a count, or below 1 a share",
        lower_bound=0.0,
    )


def main(argv: list[str]) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # keyframes only: leave accelerators alone
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = flags.FLAGS
    manifest = convert_dataset(
        options.rlds,
        options.out,
        card=options.card,
        split=options.split,
        overwrite=options.overwrite,
        clouds=options.clouds,
        workers=options.workers,
        max_rejected=options.max_rejected,
        runner=options.runner,
        beam_options=shlex.split(options.beam_options),
    )
    print(summary(options.out, manifest))


def summary(path: str | os.PathLike, manifest: dict[str, Any]) -> str:
    """The lines `convert` ends with."""
    position = manifest["stats"]["position"]
    low, high = (" ".join(f"{value:.3f}" for value in position[end]) for end in ("min", "max"))
    lines = [
        f"{path}: {manifest['episodes']:,} episodes, {manifest['steps']:,} steps, "
        f"{len(manifest['rejected_episodes']):,} rejected; card {manifest['card']}",
        f"positions {low} .. {high} m",
    ]
    check = manifest["rotation_check"]
    lines += [f"rotation: {check['answer']}: {check['reason']}"]
    for what in ("rejected", "flagged"):
        lines += [f"{what} {count:,}: {text}" for text, count in manifest[what].items()]
    return "\n".join(lines)
