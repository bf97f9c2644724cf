"""`bridgeact convert`: an RLDS dataset, read through its card, to a trajectory store."""

import contextlib
import hashlib
import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from absl import flags

from bridgeact_jax.datasets import beam_runner, files
from bridgeact_jax.datasets.account import Allowance, episodes_in, facts_of, inputs_of
from bridgeact_jax.datasets.cards import Card, card_paths, find_card, load_card
from bridgeact_jax.datasets.directories import check_new_directory
from bridgeact_jax.datasets.parts import (
    Job,
    Part,
    finished_part,
    local_part,
    make_part,
    plan_parts,
)
from bridgeact_jax.datasets.reading import EpisodeReader
from bridgeact_jax.datasets.rlds_reader import RldsDataset, open_rlds
from bridgeact_jax.datasets.store import MANIFEST, StoreBuilder
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
    inputs = inputs_of(dataset, chosen, split, clouds)
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
        allowance = Allowance(dataset, chosen, split, max_rejected)
        reports = _all_reports(job, parts, make, allowance)
        if not any(report["episodes"] for report in reports):
            space.discard()
            raise UserError(allowance.all_rejected())
        with StoreBuilder(space.new_store(), with_cloud=with_cloud) as builder:
            for part in parts:
                with local_part(job, part) as made:
                    builder.append_part(made)
            manifest = builder.finish(**facts_of(dataset, chosen, split, reports))
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
    allowance: Allowance,
) -> list[dict[str, Any]]:
    """The reports of all parts, in order; `make` makes those that are not finished."""
    reports = {part: finished_part(job, part) for part in parts}
    missing = [part for part in parts if reports[part] is None]
    done = [report for report in reports.values() if report is not None]
    for report in done:
        allowance.count(report)
    before = sum(episodes_in(report) for report in done)
    total = sum(part.stop - part.start for part in parts)
    with (
        Progress(total, "episodes", "convert", done=before) as progress,
        contextlib.closing(make(missing)) as made,
    ):
        for part, report in zip(missing, made, strict=True):
            reports[part] = report
            allowance.count(report)
            progress.update(
                episodes_in(report), num_bytes=report["bytes"], rejected=allowance.rejected
            )
    return [reports[part] for part in parts]


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
    for what in ("rejected", "flagged"):
        lines += [f"{what} {count:,}: {text}" for text, count in manifest[what].items()]
    check = manifest["rotation_check"]
    lines += [f"rotation convention: {check['answer']} ({check['reason']})"]
    return "\n".join(lines)
