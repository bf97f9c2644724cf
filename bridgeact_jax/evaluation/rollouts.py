"""Episodes of a condition, run in batches of fixed size.

An episode's outcome is a function of the condition and of (task, seed, episode): its keys come
from these alone and the batch is always padded to the same size, so that neither the number of
episodes nor that of the processes changes it.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.policies import ExpertPolicy, SplinePolicy
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.oracle import calibration_offset, oracle_plan
from bridgeact_jax.sim.environment import Environment, Observation
from bridgeact_jax.sim.follower import pad

BATCH = 20
PARTS = ("physics", "rays", "policy", "rest")  # of the time


class Job(NamedTuple):
    """At most `BATCH` episodes (task, number) under one condition; no two jobs share a `name`."""

    name: str
    condition: Condition
    episodes: tuple[tuple[str, int], ...]


class Outcome(NamedTuple):
    """What became of a job's episodes, in order.

    records: as `statistics.summarise` wants them. commands: (T, 8) for each episode, position m,
    rotation wxyz and gripper of every control step. seconds: {part of `PARTS`: seconds}.
    """

    records: list[dict]
    commands: list[np.ndarray]
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
        Job(f"{label}_{first:05d}", condition, tuple(episodes[first : first + BATCH]))
        for first in range(0, len(episodes), BATCH)
    ]


def run_job(job: Job) -> Outcome:
    """Run a batch of episodes to their ends."""
    clock, condition = Clock(), job.condition
    count = len(job.episodes)
    envs = [environment(condition, task) for task, _ in job.episodes]
    observations, plans = [], []
    for env, (_, episode) in zip(envs, job.episodes, strict=True):
        observations.append(env.reset(condition.seed, episode))
        plans.append(plan_of(env, condition, episode))
    with clock.part("policy"):
        policy = _policy(condition, *map(_padded, (job.episodes, plans, observations)))
    active = np.arange(BATCH) < count
    commands: list[list[np.ndarray]] = [[] for _ in envs]

    def cloud_of(i: int) -> np.ndarray | None:
        with clock.part("rays"):
            seen = active[i] and not condition.blinded
            return cloud(envs[i], condition, job.episodes[i][1]) if seen else None

    while active.any():
        with clock.part("policy"):
            position, rotation, gripper = policy.targets(_padded(observations), cloud_of)
        for i in np.flatnonzero(active):
            command = np.concatenate([position[i], rotation[i], gripper[i : i + 1]])
            commands[i].append(command.astype(np.float64))
            with clock.part("physics"):
                observations[i] = act(envs[i], commands[i][-1])
            active[i] = not envs[i].done
        active &= ~policy.finished()
    records = [
        {
            "task": task,
            "seed": condition.seed,
            "episode": episode,
            "success": env.success,
            "valid": env.valid,
            "failure_kind": env.failure_kind,
            "wrong_object": env.wrong_object,
            "subgoals": env.subgoals,
            "steps": env.steps,
        }
        for env, (task, episode) in zip(envs, job.episodes, strict=True)
    ]
    return Outcome(records, [np.array(rows) for rows in commands], clock.seconds())


def _padded(rows: Sequence) -> list:
    """The rows of a batch, filled up with the last."""
    return [*rows, *[rows[-1]] * (BATCH - len(rows))]


def environment(condition: Condition, task: str) -> Environment:
    """The task in the condition's world."""
    return Environment(task, arm=condition.arm, disturbance=condition.world)


def act(env: Environment, command: np.ndarray) -> Observation:
    """One control step to the (8,) command: position, rotation, gripper."""
    return env.step(command[:3], command[3:7], float(command[7]))


def cloud(env: Environment, condition: Condition, episode: int) -> np.ndarray:
    """(M, 3) float16: the cloud that the policy sees in the episode `env` is in."""
    offset = calibration_offset(_plan_key(env, condition, episode), condition.cloud_errors)
    return (env.cloud() + offset).astype(np.float16) if offset.any() else env.cloud()


def plan_of(env: Environment, condition: Condition, episode: int) -> Waypoints:
    """The planner's answer, padded, for the episode `env` has been reset to."""
    plan = pad(env.waypoints())
    if condition.shuffled:
        other = environment(condition, env.task.name)
        other.reset(condition.seed, episode + 1)
        start, plan = plan, pad(other.waypoints())
        for column, own in zip(plan[:3], start[:3], strict=True):
            column[0] = own[0]
    return oracle_plan(
        _plan_key(env, condition, episode),
        plan,
        condition.plan_errors,
        camera=env.cameras[0][0],
    )


def _plan_key(env: Environment, condition: Condition, episode: int) -> jax.Array:
    return jax.random.fold_in(_key(condition, env.task.name, episode), 0)


def _key(condition: Condition, task: str, episode: int) -> jax.Array:
    key = jax.random.key(condition.seed)
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(task.encode())), episode)


def _policy(
    condition: Condition,
    episodes: list[tuple[str, int]],
    plans: list[Waypoints],
    observations: list[Observation],
) -> SplinePolicy | ExpertPolicy:
    if condition.policy == "spline":
        return SplinePolicy(plans)
    keys = [jax.random.fold_in(_key(condition, *one), 1) for one in episodes]
    return ExpertPolicy(
        condition.checkpoint,
        plans,
        observations,
        jax.numpy.stack(keys),
        use_cloud=condition.sees_clouds,
        use_guidance=condition.policy != "cloud_only",
    )
