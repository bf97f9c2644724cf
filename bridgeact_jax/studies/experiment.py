"""The papers' studies, one command each.

    bridgeact experiment NAME       # runs a study, or goes on with it
    bridgeact experiment results    # docs/results.md, from all that has been run

NAME is appf, noise or data_scale, which train their own experts, or planner_noise, depth,
moving_target, obstacle, embodiment, camera, clutter or sampler, which evaluate one; or chatvla2,
chatvla2_stages or planner_sft, which share ChatVLA-2's data and stages and make what is missing.
OUT/NAME receives NAME.csv (a row for each cell and task), NAME.png, NAME.md and the evaluation with
its report. Killed at any moment, the same command goes on where it was.
"""

import os
import shlex
import sys
from pathlib import Path

from absl import flags

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation.conditions import checkpoint_of
from bridgeact_jax.evaluation.evaluate import default_workers, suite_tasks
from bridgeact_jax.files import write_text
from bridgeact_jax.studies.document import section, write_documents
from bridgeact_jax.studies.drawing import draw
from bridgeact_jax.studies.engine import run_study
from bridgeact_jax.studies.registry import STUDIES, find_study
from bridgeact_jax.studies.study import Scope, Study

RESULTS = "results"


def define_flags() -> None:
    """Flags of `bridgeact experiment`."""
    flags.DEFINE_bool("quick", False, "everything in minutes; the figures mean nothing")
    flags.DEFINE_string(
        "out", None, "folder of all studies (default runs/studies, with --quick runs/studies_quick)"
    )
    flags.DEFINE_string(
        "checkpoint", None,
        "the expert that is evaluated: workdir of a training run, or an exported directory "
        "(default: the one that comes along)",
    )  # fmt: skip
    flags.DEFINE_string(
        "blind", None,
        "checkpoint of the expert that sees no cloud, e.g. of stage 1 (default: --checkpoint, its "
        "cloud withheld)",
    )  # fmt: skip
    flags.DEFINE_string(
        "chatvla", None,
        "folder of ChatVLA-2's data (imagetext, knowledge, math, toy) and stages (dense, warmup, "
        "cotrain, head), as far as they are there (default: OUT/chatvla)",
    )  # fmt: skip
    flags.DEFINE_list(
        "seeds", None, "of the trainings, or of the episodes where nothing is trained, e.g. 0,1,2"
    )
    flags.DEFINE_integer("episodes", None, "of each task in each cell", lower_bound=1)
    flags.DEFINE_string("suite", None, "the tasks evaluated, as in `bridgeact evaluate`")
    flags.DEFINE_integer("workers", default_workers(), "processes", lower_bound=1)
    flags.DEFINE_string("docs", "docs", "of `results`: where results.md and results/ go")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact experiment`."""
    args = flags.FLAGS
    if len(argv) != 2:
        raise UsageError(f"experiment: name one study ({', '.join(STUDIES)}) or {RESULTS}")
    out = _out(args)
    if argv[1] == RESULTS:
        names = write_documents(Path(args.docs), out)
        print(f"{args.docs}/results.md: {', '.join(names) or 'no study has been run'}")
        return
    study = find_study(argv[1])
    rows = run_study(
        study, scope_of(study, args), out, workers=args.workers,
        command=shlex.join(["bridgeact", *sys.argv[1:]]),
    )  # fmt: skip
    folder = out / study.name
    text = section(study, rows)
    write_text(folder / f"{study.name}.md", f"# {study.question}\n\n{text}")
    draw(study, rows).savefig(folder / f"{study.name}.png")
    print(text)
    print(f"{folder}: {study.name}.csv, .png and .md")


def scope_of(study: Study, args: flags.FlagValues) -> Scope:
    """What the flags say, and the study's own sizes where they say nothing.

    Raises UsageError for a flag that cannot be used, UserError if an expert is needed and none is
    given or comes along.
    """
    size = study.quick if args.quick else study.full
    for name in ("checkpoint", "blind"):
        if study.trains and args[name].value is not None:
            raise UsageError(f"experiment: {study.name} trains its own experts: leave out --{name}")
    seeds = size.seeds if args.seeds is None else tuple(map(_seed, args.seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError("experiment: --seeds must be different numbers with commas between")
    if study.prepare is None and args.chatvla is not None:
        raise UsageError(f"experiment: {study.name} is not about ChatVLA-2: leave out --chatvla")
    expert = None if study.trains else checkpoint_of("expert", args.checkpoint)
    return Scope(
        tasks=tuple(suite_tasks(args.suite or size.suite)),
        episodes=args.episodes or size.episodes,
        seeds=seeds,
        quick=args.quick,
        expert=expert and os.path.normpath(expert),
        blind=args.blind or expert,
        chatvla=study.prepare and os.path.normpath(args.chatvla or _out(args) / "chatvla"),
    )


def _out(args: flags.FlagValues) -> Path:
    return Path(args.out or ("runs/studies_quick" if args.quick else "runs/studies"))


def _seed(word: str) -> int:
    if not word.isdigit():
        raise UsageError(f"experiment: --seeds holds '{word}', which is not a whole number from 0")
    return int(word)
