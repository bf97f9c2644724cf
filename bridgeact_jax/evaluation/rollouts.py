"""Episodes of a condition, run in batches of fixed size.

An episode's outcome is a function of the condition and of (task, seed, episode): its keys come
from these alone and the batch is always padded to the same size, so that neither the number of
episodes nor that of the processes changes it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.episodes import act, cloud, environment, sample_key
from bridgeact_jax.evaluation.planners import ANSWERS, TRANSCRIPTS, Consultation, make_planner
from bridgeact_jax.evaluation.policies import ExpertPolicy, SplinePolicy
from bridgeact_jax.evaluation.reasoner import ChatVlaPolicy
from bridgeact_jax.evaluation.replanning import Replanner
from bridgeact_jax.evaluation.thinking import Said, record_of
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim.environment import Environment, Observation
from bridgeact_jax.sim.follower import pad

BATCH = 20
PARTS = ("physics", "rays", "policy", "planner", "rest")  # of the time


class Job(NamedTuple):
    """At most `BATCH` episodes (task, number) under one condition; no two jobs share a `name`.

    `label` is what the jobs of a condition have in common, and no others.
    """

    label: str
    name: str
    condition: Condition
    episodes: tuple[tuple[str, int], ...]


class Outcome(NamedTuple):
    """What became of a job's episodes, in order.

    records: as `statistics.summarise` wants them. commands: (T, 8) for each episode, position m,
    rotation wxyz and gripper of every control step. plans: for each episode the plans it went by,
    padded, with the control step each was issued at. seconds: {part of `PARTS`: seconds}.
    """

    records: list[dict]
    commands: list[np.ndarray]
    plans: list[list[tuple[int, Waypoints]]]
    seconds: dict[str, float]


class Clock:
    """Adds up the seconds spent in each part; what is in none of them is the rest."""

    def __init__(self):
        self._start = time.perf_counter()
        self._spent = dict.fromkeys(PARTS[:-1], 0.0)
        self._inner = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Seconds in this block belong to `name`, but for those of blocks inside it."""
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        yield
        spent = time.perf_counter() - start
        self._spent[name] += spent - self._inner
        self._inner = outer + spent

    def seconds(self) -> dict[str, float]:
        """{part: seconds} since this clock was made."""
        total = time.perf_counter() - self._start
        return {**self._spent, "rest": total - sum(self._spent.values())}


def jobs_of(label: str, condition: Condition, episodes: list[tuple[str, int]]) -> list[Job]:
    """The episodes (task, number) in batches, in order, named after `label`."""
    return [
        Job(label, f"{label}_{first:05d}", condition, tuple(episodes[first : first + BATCH]))
        for first in range(0, len(episodes), BATCH)
    ]


def run_job(job: Job, out: Path | None = None) -> Outcome:
    """Run a batch of episodes to their ends.

    Args:
      out: the evaluation's folder, where what planners say is kept; None keeps nothing.
    """
    clock, condition = Clock(), job.condition
    count = len(job.episodes)
    envs = [environment(condition, task) for task, _ in job.episodes]
    observations = [
        env.reset(condition.seed, episode)
        for env, (_, episode) in zip(envs, job.episodes, strict=True)
    ]
    seen: dict[int, tuple[int, np.ndarray]] = {}  # the last cloud of each arm, with its step

    def look(i: int) -> np.ndarray:
        if i not in seen or seen[i][0] != envs[i].steps:
            with clock.part("rays"):
                seen[i] = envs[i].steps, cloud(envs[i], condition, job.episodes[i][1])
        return seen[i][1]

    by_head = condition.policy == "chatvla2"
    consultations = _consultations(job, envs, out)
    plans: list[list[tuple[int, Waypoints]]] = [[] for _ in envs]
    with clock.part("planner"):
        for i, consultation in enumerate(consultations if not by_head else ()):
            plan = consultation.ask(observations[i], look(i) if condition.guarded else None)
            plans[i] += [] if plan is None else [(0, plan)]
    first = [own[0][1] if own else _standing(env) for own, env in zip(plans, envs, strict=True)]
    with clock.part("policy"):
        if by_head:
            policy = _by_head(condition, job.episodes, envs, observations)
        else:
            policy = _policy(condition, *map(_padded, (job.episodes, first, observations)))
    replanner = None
    if condition.replan:
        with clock.part("planner"):
            replanner = Replanner(
                envs, consultations, *map(_padded, (first, observations)), look,
                sighted=condition.sees_clouds and not condition.blinded,
            )  # fmt: skip
    active = np.arange(BATCH) < count
    active[:count] &= [by_head or bool(own) for own in plans]
    commands: list[list[np.ndarray]] = [[] for _ in envs]
    gripper = np.ones(BATCH)

    def see(i: int) -> np.ndarray | None:
        if not active[i] or condition.blinded:
            return None
        return envs[i].front() if by_head else look(i)

    while active.any():
        standing: dict[int, Observation] = {}
        if replanner is not None:
            with clock.part("planner"):
                standing = replanner.stops(_padded(observations), gripper, np.flatnonzero(active))
        with clock.part("policy"):
            position, rotation, gripper = policy.targets(_padded(observations), see)
        for i in np.flatnonzero(active):
            if i in standing:
                position[i], rotation[i] = standing[i].position, standing[i].rotation
                gripper[i] = envs[i].world.gripper_open
            command = np.concatenate([position[i], rotation[i], gripper[i : i + 1]])
            commands[i].append(command.astype(np.float64))
            with clock.part("physics"):
                observations[i] = act(envs[i], commands[i][-1])
            active[i] = not envs[i].done
        finished = policy.finished()
        finished[list(standing)] = False  # they wait for a plan
        active &= ~finished
        for i in standing:
            if not active[i] or replanner.thinks(i):
                continue
            with clock.part("planner"):
                plan = replanner.plan(i, observations[i])
            active[i] = plan is not None
            if plan is not None:
                plans[i].append((envs[i].steps, plan))
                policy.replace(i, plan)
    said = policy.said()[:count] if by_head else [one.said for one in consultations]
    records = [
        _record(env, condition, episode, *told)
        for env, (_, episode), *told in zip(envs, job.episodes, consultations, said, strict=True)
    ]
    return Outcome(
        records, [np.array(rows).reshape(-1, 8) for rows in commands], plans, clock.seconds()
    )


def _consultations(job: Job, envs: list[Environment], out: Path | None) -> list[Consultation]:
    transcript = out and out / TRANSCRIPTS / f"{job.name}.jsonl"
    planner = cache(partial(make_planner, job.condition, transcript))  # once it is needed
    return [
        Consultation(
            env, job.condition, episode, planner,
            out and str(out / ANSWERS / f"{job.label}_{task}_{episode:05d}"),
        )
        for env, (task, episode) in zip(envs, job.episodes, strict=True)
    ]  # fmt: skip


def _record(
    env: Environment, condition: Condition, episode: int, consultation: Consultation, said: Said
) -> dict:
    failure = None if env.success else consultation.verdict or env.failure_kind
    record = {
        "task": env.task.name,
        "seed": condition.seed,
        "episode": episode,
        "success": env.success,
        "valid": env.valid,
        "failure_kind": failure,
        "wrong_object": env.wrong_object,
        "subgoals": env.subgoals,
        "steps": env.steps,
    }
    if condition.consults:
        record["planning"] = consultation.record()
    return record | record_of(said, env) if condition.reasons else record


def _standing(env: Environment) -> Waypoints:
    """The plan of an arm that stays where it is."""
    return pad(env.waypoints_of([]))


def _padded(rows: Sequence) -> list:
    """The rows of a batch, filled up with the last."""
    return [*rows, *[rows[-1]] * (BATCH - len(rows))]


def _by_head(
    condition: Condition,
    episodes: Sequence[tuple[str, int]],
    envs: list[Environment],
    observations: list[Observation],
) -> ChatVlaPolicy:
    return ChatVlaPolicy(
        condition.checkpoint,
        _padded([env.instruction for env in envs]),
        _padded([env.front() for env in envs]),
        _padded(observations),
        _keys(condition, _padded(episodes)),
    )


def _keys(condition: Condition, episodes: Sequence[tuple[str, int]]) -> jax.Array:
    return jax.numpy.stack([sample_key(condition, *one) for one in episodes])


def _policy(
    condition: Condition,
    episodes: list[tuple[str, int]],
    plans: list[Waypoints],
    observations: list[Observation],
) -> SplinePolicy | ExpertPolicy:
    if condition.policy == "spline":
        return SplinePolicy(plans)
    return ExpertPolicy(
        condition.checkpoint,
        plans,
        observations,
        _keys(condition, episodes),
        use_cloud=condition.sees_clouds,
        use_guidance=condition.policy != "cloud_only",
        **condition.sampler,
    )
