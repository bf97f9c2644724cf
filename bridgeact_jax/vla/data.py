"""Data for a model that looks, thinks and acts: pictures with questions, or with motion.

imagetext: drawings with questions and answers; knowledge: the same in a test that no training sees.
math, toy: scripted demonstrations in MuJoCo of the worlds that are read, as --split says: train,
open (the open world) or reworded (the open world, in wordings that are not trained); these need a
graphics library.
"""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from bridgeact_jax.datasets.columns import ColumnFile, Layout
from bridgeact_jax.datasets.directories import new_directory
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.files import write_text
from bridgeact_jax.progress import Progress
from bridgeact_jax.sim import demos
from bridgeact_jax.sim.front_camera import SIZE
from bridgeact_jax.sim.tasks import WORLDS
from bridgeact_jax.sim.tasks.math_matching import MathMatching
from bridgeact_jax.sim.tasks.reading import OPEN, REWORDED, TRAIN
from bridgeact_jax.sim.tasks.toy_placement import ToyPlacement
from bridgeact_jax.vla.folders import SCHEMA_VERSION
from bridgeact_jax.vla.imagetext import GROUPS, TESTED, Sample, sample
from bridgeact_jax.vla.reasoning import truth
from bridgeact_jax.workers import map_in_processes

DRAWN = ("imagetext", "knowledge")
PLAYED = {"math": MathMatching.world, "toy": ToyPlacement.world}
MANIFEST, PICTURES = "manifest.json", "pictures"
COLUMNS = {
    PICTURES: Layout("|u1", (*SIZE, 3), "what the front camera sees"),
    "position": Layout("<f4", (3,), "measured, metres, base frame"),
    "rotation": Layout("<f4", (4,), "measured, unit quaternion wxyz, base frame"),
    "gripper": Layout("<f4", (), "command sent at the frame, 1 = open"),
    "gripper_width": Layout("<f4", (), "measured opening in [0, 1]"),
}
AT_ONCE = 64  # drawings of one job of a process

Frames = dict[str, np.ndarray]
Line = dict[str, Any]


def define_flags() -> None:
    """Flags of `bridgeact vla-data`."""
    flags.DEFINE_enum("kind", None, [*DRAWN, *PLAYED], "what to make")
    flags.DEFINE_enum("split", TRAIN, [TRAIN, OPEN, REWORDED], "of math and toy")
    flags.DEFINE_integer("samples", None, "how many, of imagetext and knowledge", lower_bound=1)
    flags.DEFINE_integer("episodes", None, "how many, of math and toy", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "other seeds, other samples and episodes", lower_bound=0)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1)
    flags.DEFINE_string("out", None, "folder to write")
    flags.DEFINE_bool("overwrite", False, "replace an existing folder")
    flags.mark_flags_as_required(["kind", "out"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact vla-data`."""
    del argv
    args = flags.FLAGS
    drawn = args.kind in DRAWN
    asked, other = ("samples", "episodes") if drawn else ("episodes", "samples")
    if args[other].present or not args[asked].present:
        raise UsageError(f"vla-data: --kind={args.kind} takes --{asked}=N")
    if drawn and args["split"].present:
        raise UsageError(f"vla-data: --kind={args.kind} has no --split")
    settings = dict(seed=args.seed, workers=args.workers, overwrite=args.overwrite)
    if drawn:
        counts = write_imagetext(
            args.out, args.samples, test=args.kind == "knowledge", **settings
        )
    else:
        counts = write_episodes(args.out, args.kind, args.episodes, split=args.split, **settings)
    print(f"{args.out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def write_imagetext(
    out: str | os.PathLike, samples: int, *, test: bool = False, seed: int = 0, workers: int = 1,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write pictures with questions, as many of each group, or the knowledge test.

    The same arguments give the same bytes, whatever `workers`. Returns the number of each group.
    Raises UserError if `out` is there already or cannot be written.
    """
    groups = TESTED if test else tuple(GROUPS)
    numbers = [range(i, min(i + AT_ONCE, samples)) for i in range(0, samples, AT_ONCE)]
    counts = dict.fromkeys(groups, 0)

    def rows() -> Iterator[tuple[Frames, Line]]:
        draw = partial(_drawings, groups, seed, test)
        with Progress(samples, "samples", "vla-data") as progress:
            for drawings in map_in_processes(draw, numbers, workers):
                for x in drawings:
                    counts[x.group] += 1
                    line = {"question": x.question, "answer": x.answer, "group": x.group}
                    yield {PICTURES: x.picture[None]}, line | {"content": x.content}
                progress.update(len(drawings))

    options = {"kind": "knowledge" if test else "imagetext", "samples": samples}
    _write(out, "imagetext", [PICTURES], "samples.jsonl", rows(), counts, options, seed, overwrite)
    return counts


def write_episodes(
    out: str | os.PathLike, kind: str, episodes: int, *, split: str = TRAIN, seed: int = 0,
    workers: int = 1, overwrite: bool = False,
) -> dict[str, int]:
    """Write demonstrations of "math" or "toy", with pictures and what is to be thought.

    The same arguments give the same episodes in the same order, whatever `workers`. Returns the
    number of episodes, frames, and attempts that failed and were left out. Raises UserError if
    `out` is there already or cannot be written, and without a graphics library.
    """
    name = PLAYED[kind] if split == TRAIN else f"{PLAYED[kind]}_{split}"
    counts = {"episodes": 0, "frames": 0, "failed": 0}

    def rows() -> Iterator[tuple[Frames, Line]]:
        jobs = [(name, seed, number) for number in range(episodes)]
        with Progress(episodes, "episodes", "vla-data") as progress:
            for frames, line, failed in map_in_processes(_episode, jobs, workers):
                line |= {"first": counts["frames"], "length": len(frames["gripper"])}
                counts["episodes"] += 1
                counts["frames"] += line["length"]
                counts["failed"] += failed
                progress.update(failed=counts["failed"])
                yield frames, line

    options = {"kind": kind, "split": split, "episodes": episodes}
    _write(out, "robot", list(COLUMNS), "episodes.jsonl", rows(), counts, options, seed, overwrite)
    return counts


def _write(out, kind, names, lines_name, rows, counts, options, seed, overwrite) -> None:
    """A folder of `kind` from rows (frames by column, JSON line), in bounded memory."""
    with new_directory(out, marker=MANIFEST, overwrite=overwrite) as folder:
        files = {name: ColumnFile(folder / f"{name}.npy", COLUMNS[name]) for name in names}
        with open(folder / lines_name, "w", encoding="utf-8", newline="\n") as lines:
            for frames, line in rows:
                for name, file in files.items():
                    file.append(frames[name])
                lines.write(json.dumps(line) + "\n")
        for file in files.values():
            file.finish()
        manifest = {
            "schema_version": SCHEMA_VERSION, "kind": kind, "picture": list(SIZE),
            "counts": counts, "options": options, "seed": seed,
        }
        write_text(Path(folder) / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _drawings(groups: tuple[str, ...], seed: int, test: bool, numbers: range) -> list[Sample]:
    return [
        sample(groups[n % len(groups)], n // len(groups), seed, test=test) for n in numbers
    ]


def _episode(job: tuple[str, int, int]) -> tuple[Frames, Line, int]:
    """The first successful demonstration of a number, and how many attempts failed before."""
    name, seed, number = job
    env = demos.environment(name)
    for failed in range(demos.MAX_ATTEMPTS):
        episode, text, rows = number * demos.MAX_ATTEMPTS + failed, "", []
        for observation, command in demos.demonstrate(env, seed, episode):
            text = text or truth(env)
            rows.append((
                env.front(), observation.position, observation.rotation, command[7],
                observation.gripper_width,
            ))
        if env.success:
            frames = {
                column: np.array(values)
                for column, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)
            }
            line = {
                "task": name, "split": WORLDS[name].split, "instruction": env.instruction,
                "reasoning": text, "episode": episode, "facts": dict(env.layout.facts),
            }
            return frames, line, failed
    raise UserError(f"{name}: {demos.MAX_ATTEMPTS} demonstrations failed in a row (seed {seed})")
