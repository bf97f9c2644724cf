"""Episodes of a condition, run in batches of fixed size.

An episode's outcome is a function of the condition and of (task, seed, episode): its keys come
from these alone and the batch is always padded to the same size, so that neither the number of
episodes nor that of the processes changes it.
"""

import dataclasses
import os
import zlib
from typing import NamedTuple

import jax
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.drawing import draw_scene
from bridgeact_jax.evaluation.policies import ExpertPolicy, SplinePolicy
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.oracle import oracle_plan
from bridgeact_jax.sim.cameras import camera_poses
from bridgeact_jax.sim.environment import Environment, Observation
from bridgeact_jax.sim.follower import guidance_of, pad

BATCH = 20
POLICIES = ("expert", "expert_blind", "spline")
ABLATIONS = ("none", "shuffled_guidance", "empty_cloud")
FRAMES_EVERY = 2  # control steps between recorded pictures


@dataclasses.dataclass(frozen=True)
class Condition:
    """What is evaluated. Noises in metres; `checkpoint` is the workdir of a training run.

    `shuffled_guidance` gives each episode another episode's plan; `empty_cloud` shows no points.
    """

    policy: str
    checkpoint: str | None = None
    planner: str = "oracle"
    waypoint_noise: float = 0.0
    depth_noise: float = 0.0
    ablation: str = "none"
    seed: int = 0


class Job(NamedTuple):
    """A batch of episodes of one task under one condition; the first `film` are filmed."""

    condition: Condition
    task: str
    episodes: tuple[int, ...]
    film: int
    rendered: bool


class Outcome(NamedTuple):
    """A job's records, as `statistics.summarise` wants them, and the frames of those filmed."""

    job: Job
    records: list[dict]
    frames: list[list[np.ndarray]]


def jobs_of(
    condition: Condition, tasks: list[str], episodes: int, film: int = 0, rendered: bool = False
) -> list[Job]:
    """The batches that make up a condition, `episodes` of each task."""
    return [
        Job(
            condition,
            task,
            tuple(range(first, min(first + BATCH, episodes))),
            min(max(0, film - first), BATCH),
            rendered,
        )
        for task in tasks
        for first in range(0, episodes, BATCH)
    ]


def _key(condition: Condition, task: str, episode: int) -> jax.Array:
    key = jax.random.key(condition.seed)
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(task.encode())), episode)


def _plan(env: Environment, condition: Condition, task: str, episode: int) -> Waypoints:
    """The planner's answer for the episode `env` has been reset to."""
    truth = pad(env.waypoints())
    if condition.ablation == "shuffled_guidance":
        other = Environment(task)
        other.reset(condition.seed, episode + 1)
        wrong = pad(other.waypoints())
        for mine, theirs in zip(truth[:3], wrong[:3], strict=True):
            mine[1:] = theirs[1:]
    return oracle_plan(
        jax.random.fold_in(_key(condition, task, episode), 0),
        truth,
        waypoint_noise=condition.waypoint_noise,
        depth_noise=condition.depth_noise,
        camera=camera_poses()[0][0],
    )


class _Film:
    """Frames of one episode: what the expert works with and, where it can be, a picture."""

    def __init__(self, env: Environment, plan: Waypoints, rendered: bool):
        self._env, self._rendered = env, rendered
        self._plan = plan.position[: int(plan.count)]
        self._curve = np.asarray(guidance_of(plan).position)
        self._path: list[np.ndarray] = []
        self.frames: list[np.ndarray] = []

    def add(self, observation: Observation, *, keep: bool) -> None:
        self._path.append(observation.position)
        if keep:
            frame = draw_scene(
                self._env.cloud(),
                self._plan,
                self._curve,
                np.array(self._path),
                observation.gripper_width,
            )
            sides = [self._env.render(), frame] if self._rendered else [frame]
            self.frames.append(np.concatenate(sides, axis=1))


def run_job(job: Job) -> Outcome:
    """Run a batch of episodes to their ends."""
    condition = job.condition
    padded = [*job.episodes, *[job.episodes[-1]] * (BATCH - len(job.episodes))]
    envs = [Environment(job.task) for _ in padded]
    observations = [
        env.reset(condition.seed, episode) for env, episode in zip(envs, padded, strict=True)
    ]
    plans = [
        _plan(env, condition, job.task, episode)
        for env, episode in zip(envs, padded, strict=True)
    ]
    if condition.policy == "spline":
        policy = SplinePolicy(plans)
    else:
        keys = jax.numpy.stack(
            [jax.random.fold_in(_key(condition, job.task, e), 1) for e in padded]
        )
        use_cloud = condition.policy == "expert"
        policy = ExpertPolicy(
            condition.checkpoint, plans, observations, keys, use_cloud=use_cloud
        )
    active = np.arange(BATCH) < len(job.episodes)
    films = [
        _Film(envs[i], plans[i], job.rendered) for i in range(min(job.film, len(job.episodes)))
    ]

    def cloud_of(i: int) -> np.ndarray | None:
        return envs[i].cloud() if active[i] and condition.ablation != "empty_cloud" else None

    step = 0
    while active.any():
        for i, film in enumerate(films):
            if active[i]:
                film.add(observations[i], keep=step % FRAMES_EVERY == 0)
        position, rotation, gripper = policy.targets(observations, cloud_of)
        for i in np.flatnonzero(active):
            observations[i] = envs[i].step(position[i], rotation[i], float(gripper[i]))
            active[i] = not envs[i].done
        active &= ~policy.finished()
        step += 1
    records = [
        {
            "task": job.task,
            "seed": condition.seed,
            "episode": episode,
            "success": env.success,
            "valid": env.valid,
            "failure_kind": env.failure_kind,
            "wrong_object": env.wrong_object,
            "steps": env.steps,
        }
        for env, episode in zip(envs, job.episodes, strict=False)
    ]
    return Outcome(job, records, [film.frames for film in films])


def can_render() -> str | None:
    """None if pictures can be made here, else what to do about it."""
    try:
        env = Environment("lift")
        env.reset(0, 0)
        env.render(64, 48)
    except UserError as error:
        return str(error)
    return None


def default_workers() -> int:
    """One process a core, at most 8."""
    return min(len(os.sched_getaffinity(0)), 8)
