"""Closed-loop evaluation in MuJoCo: success with intervals, a report, pictures.

Every axis below is off by default. Ended at any moment, the same command goes on where it was.
"""

import dataclasses
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from absl import flags

from bridgeact_jax import __version__
from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.evaluation import conditions as axes
from bridgeact_jax.evaluation.attribution import attribute
from bridgeact_jax.evaluation.checkpoints import check_checkpoint, latest_step
from bridgeact_jax.evaluation.conditions import ABLATIONS, POLICIES, Condition
from bridgeact_jax.evaluation.films import Film, can_render, choose, film
from bridgeact_jax.evaluation.kept import claim, run_once
from bridgeact_jax.evaluation.media import Media
from bridgeact_jax.evaluation.planners import check_planner, write_plans
from bridgeact_jax.evaluation.report import format_table, write_report
from bridgeact_jax.evaluation.rollouts import PARTS, Job, Outcome, jobs_of
from bridgeact_jax.evaluation.statistics import HORIZONS, summarise
from bridgeact_jax.evaluation.viewing import view
from bridgeact_jax.files import write_text
from bridgeact_jax.progress import Progress
from bridgeact_jax.sim.tasks import TASKS, WORLDS
from bridgeact_jax.workers import map_in_processes

Run = Callable[[list[Job]], Iterable[Outcome]]


def define_flags() -> None:
    """Flags of `bridgeact evaluate`."""
    flags.DEFINE_string(
        "checkpoint", None,
        "workdir of a training run, or an exported directory (default: the expert that comes along)"
    )
    flags.DEFINE_enum("policy", "expert", POLICIES, "who acts")
    flags.DEFINE_string(
        "suite", "all",
        f"{', '.join(HORIZONS)}, all, a task's name, or several with commas; also, apart from all, "
        f"the worlds that are read: {', '.join(WORLDS)}",
    )
    flags.DEFINE_integer("episodes", 50, "of each task", lower_bound=1)
    axes.define_flags()
    flags.DEFINE_string(
        "sweep", None, "an axis: its documented values are run one after the other"
    )
    flags.DEFINE_enum("ablation", "none", ABLATIONS, "what to take away from the expert")
    flags.DEFINE_bool(
        "attribute", True, "run failures again with exact waypoints, then with faultless clouds"
    )
    flags.DEFINE_integer("seed", 0, "of episodes, plans and samples", lower_bound=0)
    flags.DEFINE_integer(
        "videos", None, "of failures and of successes for each task (default 1; 0 in a sweep)",
        lower_bound=0,
    )
    flags.DEFINE_integer("workers", default_workers(), "processes", lower_bound=1)
    flags.DEFINE_string("out", None, "directory for the results; required but with --view")
    flags.DEFINE_bool("overwrite", False, "replace another evaluation in --out")
    flags.DEFINE_bool("view", False, "show the episodes in MuJoCo's viewer and write nothing")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact evaluate`."""
    del argv
    args = flags.FLAGS
    condition = axes.condition_of(args)
    tasks = suite_tasks(args.suite)
    if args.view:
        _check(condition, tasks)
        view(condition, tasks, args.episodes)
        return
    if args.out is None:
        raise UsageError("evaluate: --out is required")
    swept = args.sweep is not None
    conditions = axes.sweep(condition, args.sweep) if swept else {args.policy: condition}
    videos = int(not swept) if args.videos is None else args.videos
    results = evaluate(
        conditions,
        tasks,
        episodes=args.episodes,
        workers=args.workers,
        out=args.out,
        suite=args.suite,
        videos=dict.fromkeys(conditions, videos),
        attributed=args.attribute,
        overwrite=args.overwrite,
        title=f"{args.policy} on {args.suite}" + (f": {args.sweep}" if swept else ""),
        commands=[shlex.join(["bridgeact", *sys.argv[1:]])],
    )
    print(format_table(results))
    print(f"report: {Path(args.out) / 'report.html'}")


def suite_tasks(suite: str) -> list[str]:
    """The tasks of a suite, one by name, or those of several words with commas between.

    Raises UsageError for an unknown word.
    """
    chosen = set()
    for word in suite.split(","):
        found = {n for n, task in TASKS.items() if word in ("all", n, task.horizon)}
        found |= {word} & WORLDS.keys()
        if not found:
            hint = nearest(word, [*HORIZONS, "all", *TASKS, *WORLDS])
            raise UsageError(f"evaluate: unknown --suite '{word}': {hint}")
        chosen |= found
    return [name for name in TASKS | WORLDS if name in chosen]


def default_workers() -> int:
    """One process a core, at most 8."""
    return min(len(os.sched_getaffinity(0)), 8)


def evaluate(
    conditions: dict[str, Condition],
    tasks: Sequence[str],
    *,
    episodes: int,
    workers: int,
    out: str | os.PathLike,
    suite: str,
    videos: Mapping[str, int],
    title: str,
    attributed: bool = True,
    overwrite: bool = False,
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> list[dict]:
    """Run every condition and write results, episodes, videos and the report to `out`.

    What `out` holds of the same evaluation is not run again. `results.json` and `episodes.jsonl`
    are the same to the last byte for any number of workers and interruptions.

    Args:
      conditions: {label: condition}. With one condition its results are `results.json` itself,
        with several a list of them.
      episodes: of each task; videos: {label: failures and successes of each task to film}.
      attributed: find out whose each failure is.
      overwrite: `out` may hold another evaluation, which is removed.

    Returns:
      one result per condition, as `statistics.summarise`, with its `label`.

    Raises UserError or UsageError, before anything is made or run, for an impossible condition.
    """
    for condition in conditions.values():
        _check(condition, tasks)
    out = Path(out)
    identity = {
        "version": __version__,
        "conditions": {label: _identity(condition) for label, condition in conditions.items()},
        "tasks": list(tasks),
        "episodes": episodes,
        "videos": dict(videos),
        "attribute": attributed,
    }
    claim(out, identity, overwrite=overwrite)
    start = time.monotonic()
    seconds = dict.fromkeys(PARTS, 0.0)

    def run(jobs: list[Job], label: str = "evaluation") -> Iterable[Outcome]:
        with Progress(sum(len(job.episodes) for job in jobs), "episodes", label) as progress:
            for outcome in map_in_processes(run_once, [(out, job) for job in jobs], workers):
                for part in PARTS:
                    seconds[part] += outcome.seconds[part]
                progress.update(len(outcome.records))
                yield outcome

    records, outcomes = _run_all(conditions, tasks, episodes, run)
    measured = dict(seconds)
    if attributed:
        attribute(conditions, records, lambda jobs: run(jobs, "attribution") if jobs else ())
    timing = _timing(measured, sum(map(len, records.values())))
    results = [
        {
            "label": label,
            **summarise(
                records[label],
                horizons={name: task.horizon for name, task in (TASKS | WORLDS).items()},
                settings=_settings(condition, suite),
            ),
        }
        for label, condition in conditions.items()
    ]
    lines = [
        json.dumps({"label": label, **record}) for label in conditions for record in records[label]
    ]
    write_text(out / "episodes.jsonl", "".join(line + "\n" for line in lines))
    content = results[0] if len(results) == 1 else results
    write_text(out / "results.json", json.dumps(content, indent=1))
    usage = write_plans(out, conditions)

    notes = list(notes)
    missing = can_render() if any(videos.values()) else None
    if missing:
        notes.append(f"The videos show clouds only: {missing}.")
    media = _film(conditions, records, outcomes, out, videos, missing is None, workers)
    timing["wall_seconds"] = time.monotonic() - start
    timing["workers"] = workers
    if usage:
        timing["planner"] = usage
    write_text(out / "timing.json", json.dumps(timing, indent=1))
    write_report(
        out / "report.html", results, title=title, media=media, notes=notes, commands=commands,
        config={"episodes per task": episodes, "tasks": list(tasks)},
    )
    print(_timing_line(timing))
    return results


def _check(condition: Condition, tasks: Sequence[str]) -> None:
    """Raise UserError or UsageError if the condition cannot be run or would not be what it says."""
    policy = condition.policy
    if condition.blinded and not condition.sees_clouds:
        raise UsageError(
            f"evaluate: --ablation=empty_cloud changes nothing: --policy={policy} sees no cloud"
        )
    if condition.shuffled and not condition.sees_plans:
        raise UsageError(
            f"evaluate: --ablation=shuffled_guidance changes nothing: --policy={policy} sees no "
            "plan"
        )
    check_planner(condition, tasks)
    who = "--policy=chatvla2" if policy == "chatvla2" else f"--planner={condition.planner}"
    if (condition.reasons or condition.planner != "oracle") and (missing := can_render()):
        raise UserError(f"evaluate: {who} looks at pictures: {missing}")
    if policy != "spline":
        check_checkpoint(policy, condition.checkpoint, tasks)


def _identity(condition: Condition) -> dict:
    identity = dataclasses.asdict(condition)
    for name in ("checkpoint", "planner_checkpoint"):
        given = getattr(condition, name)
        identity[f"{name}_step"] = None if given is None else latest_step(given)
    if condition.planner == "file":
        identity["plans_sha256"] = hashlib.sha256(Path(condition.plans).read_bytes()).hexdigest()
    return identity


def _run_all(
    conditions: Mapping[str, Condition], tasks: Sequence[str], episodes: int, run: Run
) -> tuple[dict[str, list[dict]], dict[str, list[tuple]]]:
    """Records, and commands with plans, of every episode, by label."""
    wanted = [(task, episode) for task in tasks for episode in range(episodes)]
    jobs, labels = [], []
    for number, (label, condition) in enumerate(conditions.items()):
        found = jobs_of(f"{number:02d}", condition, wanted)
        jobs += found
        labels += [label] * len(found)
    records: dict[str, list[dict]] = {label: [] for label in conditions}
    done: dict[str, list[tuple]] = {label: [] for label in conditions}
    for label, outcome in zip(labels, run(jobs), strict=True):
        records[label] += outcome.records
        done[label] += zip(outcome.commands, outcome.plans, strict=True)
    return records, done


def _settings(condition: Condition, suite: str) -> dict:
    """What `results.json` says of a condition: axes that are off are left out."""
    checkpoint = condition.checkpoint
    return {
        "policy": condition.policy,
        "planner": condition.planner if condition.sees_plans else None,
        "suite": suite,
        "seed": condition.seed,
        "arm": condition.arm,
        "ablation": condition.ablation,
        "waypoint_noise": condition.errors.waypoint_noise,
        "depth_noise": condition.errors.depth_noise,
        **condition.axes,
        **condition.planning,
        **condition.sampler,
        "checkpoint": checkpoint and os.path.basename(checkpoint.rstrip("/")),
    }


def _film(
    conditions: Mapping[str, Condition],
    records: Mapping[str, list[dict]],
    done: Mapping[str, list[tuple]],
    out: Path,
    videos: Mapping[str, int],
    rendered: bool,
    workers: int,
) -> list[Media]:
    orders = []
    for number, (label, condition) in enumerate(conditions.items()):
        for index in choose(records[label], videos.get(label, 0)):
            record = records[label][index]
            name = f"{number:02d}_{record['task']}_{record['episode']:05d}"
            orders.append(
                Film(out, name, label, condition, record, *done[label][index], rendered)
            )
    if not orders:
        return []
    with Progress(len(orders), "videos", "filming") as progress:
        media = []
        for item in map_in_processes(film, orders, workers):
            media.append(item)
            progress.update()
    return media


def _timing(seconds: Mapping[str, float], episodes: int) -> dict:
    """The content of `timing.json`: seconds of the processes together, attribution left out."""
    total = sum(seconds.values())
    return {
        "seconds": dict(seconds),
        "share": {part: spent / total for part, spent in seconds.items()},
        "episodes": episodes,
        "seconds_per_episode": total / episodes,
    }


def _timing_line(timing: Mapping) -> str:
    shares = ", ".join(f"{part} {100 * share:.0f} %" for part, share in timing["share"].items())
    return (
        f"{timing['episodes']} episodes, {timing['seconds_per_episode']:.2f} s each on one core: "
        f"{shares}; {timing['wall_seconds']:.0f} s in all with {timing['workers']} processes"
    )
