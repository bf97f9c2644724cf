"""Closed-loop evaluation in MuJoCo: success with intervals, a report, pictures."""

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.evaluation import rollouts
from bridgeact_jax.evaluation.files import write_text
from bridgeact_jax.evaluation.media import Media, animation
from bridgeact_jax.evaluation.report import format_table, write_report
from bridgeact_jax.evaluation.rollouts import ABLATIONS, POLICIES, Condition
from bridgeact_jax.evaluation.statistics import HORIZONS, summarise
from bridgeact_jax.progress import Progress
from bridgeact_jax.sim.tasks import TASKS
from bridgeact_jax.training.checkpoint import open_checkpoints
from bridgeact_jax.workers import map_in_processes


def define_flags() -> None:
    """Flags of `bridgeact evaluate`."""
    flags.DEFINE_string("checkpoint", None, "workdir of a training run; the spline needs none")
    flags.DEFINE_enum("policy", "expert", POLICIES, "who acts")
    flags.DEFINE_enum("planner", "oracle", ["oracle"], "who plans")
    flags.DEFINE_string("suite", "all", f"{', '.join(HORIZONS)}, all, or a task's name")
    flags.DEFINE_integer("episodes", 50, "of each task", lower_bound=1)
    flags.DEFINE_float("waypoint_noise", 0.0, "m per axis and waypoint", lower_bound=0)
    flags.DEFINE_float("depth_noise", 0.0, "m along the camera's ray, per plan", lower_bound=0)
    flags.DEFINE_enum("ablation", "none", ABLATIONS, "what to take away from the expert")
    flags.DEFINE_integer("seed", 0, "of episodes, plans and samples", lower_bound=0)
    flags.DEFINE_integer("videos", 2, "episodes of each task to film", lower_bound=0)
    flags.DEFINE_integer("workers", rollouts.default_workers(), "processes", lower_bound=1)
    flags.DEFINE_string("out", None, "directory for the results")
    flags.mark_flag_as_required("out")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact evaluate`."""
    del argv
    args = flags.FLAGS
    condition = Condition(
        policy=args.policy,
        checkpoint=None if args.policy == "spline" else args.checkpoint,
        planner=args.planner,
        waypoint_noise=args.waypoint_noise,
        depth_noise=args.depth_noise,
        ablation=args.ablation,
        seed=args.seed,
    )
    results = evaluate(
        {args.policy: condition},
        suite_tasks(args.suite),
        episodes=args.episodes,
        workers=args.workers,
        out=args.out,
        suite=args.suite,
        videos={args.policy: args.videos},
        title=f"{args.policy} on {args.suite}",
        commands=[shlex.join(["bridgeact", *sys.argv[1:]])],
    )
    print(format_table(results))
    print(f"report: {Path(args.out) / 'report.html'}")


def suite_tasks(suite: str) -> list[str]:
    """The tasks of a suite, or one task by name.

    Raises UsageError for an unknown word, UserError for a horizon without tasks.
    """
    if suite == "all":
        return list(TASKS)
    chosen = [name for name, task in TASKS.items() if suite in (name, task.horizon)]
    if not chosen and suite in HORIZONS:
        found = ", ".join(f"{name} ({task.horizon})" for name, task in TASKS.items())
        raise UserError(f"there is no task of horizon '{suite}' yet; tasks: {found}")
    if not chosen:
        hint = nearest(suite, [*HORIZONS, "all", *TASKS])
        raise UsageError(f"evaluate: unknown --suite '{suite}': {hint}")
    return chosen


def _check(condition: Condition) -> None:
    """Raise UserError or UsageError if the condition cannot be run or would not be what it says."""
    policy, checkpoint = condition.policy, condition.checkpoint
    if condition.ablation == "empty_cloud" and policy != "expert":
        raise UsageError(
            f"evaluate: --ablation=empty_cloud changes nothing: --policy={policy} sees no cloud"
        )
    if policy == "spline":
        return
    if checkpoint is None:
        raise UsageError(f"evaluate: --policy={policy} needs --checkpoint=WORKDIR")
    checkpoints = open_checkpoints(checkpoint)
    sees = checkpoints.config()[0].use_cloud
    checkpoints.close()
    if policy == "expert" and not sees:
        raise UsageError(
            f"evaluate: --checkpoint={checkpoint} is a stage 1 checkpoint, which has never seen a "
            "cloud: use --policy=expert_blind or fine-tune it first"
        )


def _make_directory(out: Path) -> None:
    """Make `out` unless it is there; raises UserError if it cannot be made or written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written to: {error.strerror}") from None


def evaluate(
    conditions: dict[str, Condition],
    tasks: Sequence[str],
    *,
    episodes: int,
    workers: int,
    out: str | os.PathLike,
    suite: str,
    videos: dict[str, int],
    title: str,
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> list[dict]:
    """Run every condition and write `results.json`, `episodes.jsonl` and `report.html` to `out`.

    Args:
      conditions: {label: condition}. With one condition its results are `results.json` itself,
        with several a list of them.
      episodes: of each task; videos: {label: episodes of each task to film}.

    Returns:
      one result per condition, as `statistics.summarise`, with its `label` and `ablation`.

    Raises UserError or UsageError, before anything is made or run, for an impossible condition.
    """
    for condition in conditions.values():
        _check(condition)
    out = Path(out)
    _make_directory(out)
    notes = list(notes)
    missing = rollouts.can_render() if any(videos.values()) else None
    if missing:
        notes.append(f"The videos show clouds only: {missing}.")
    jobs, labels = [], []
    for label, condition in conditions.items():
        film, rendered = videos.get(label, 0), missing is None
        found = rollouts.jobs_of(condition, list(tasks), episodes, film, rendered)
        jobs += found
        labels += [label] * len(found)
    records: dict[str, list[dict]] = {label: [] for label in conditions}
    media: list[Media] = []
    with Progress(sum(len(job.episodes) for job in jobs), "episodes", "evaluation") as progress:
        outcomes = map_in_processes(rollouts.run_job, jobs, workers)
        for label, outcome in zip(labels, outcomes, strict=True):
            records[label] += outcome.records
            media += [_film(label, outcome, i) for i in range(len(outcome.frames))]
            progress.update(len(outcome.records), condition=label)

    horizons = {name: task.horizon for name, task in TASKS.items()}
    results = []
    for label, condition in conditions.items():
        summary = summarise(
            records[label],
            horizons=horizons,
            policy=condition.policy,
            planner=condition.planner,
            suite=suite,
            seed=condition.seed,
            waypoint_noise=condition.waypoint_noise,
            depth_noise=condition.depth_noise,
            checkpoint=condition.checkpoint and os.path.basename(condition.checkpoint.rstrip("/")),
        )
        results.append({"label": label, "ablation": condition.ablation, **summary})
    lines = [
        json.dumps({"label": label, **record}) for label in conditions for record in records[label]
    ]
    write_text(out / "episodes.jsonl", "".join(line + "\n" for line in lines))
    content = results[0] if len(results) == 1 else results
    write_text(out / "results.json", json.dumps(content, indent=1))
    write_report(
        out / "report.html", results, title=title, media=media, notes=notes, commands=commands,
        config={"episodes per task": episodes, "tasks": list(tasks)},
    )
    return results


def _film(label: str, outcome: rollouts.Outcome, index: int) -> Media:
    record = outcome.records[index]
    verdict = "success" if record["success"] else record["failure_kind"].replace("_", " ")
    return animation(
        f"{record['task'].replace('_', ' ')}, episode {record['episode']}: {verdict}",
        outcome.frames[index],
        frames_per_second=10 / rollouts.FRAMES_EVERY,
        group=label,
        success=record["success"],
    )
