"""Scripted demonstrations in MuJoCo, written as an RLDS dataset with point clouds.

The expert knows the true poses. Its motion varies as a person's would: speed, a detour on the long
way, an approach beside the object that is corrected on the way down. Only successes are kept.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from bridgeact_jax.datasets.rlds_writer import Feature, write_rlds
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.progress import Progress
from bridgeact_jax.sim import tasks as task_table
from bridgeact_jax.sim.environment import CLOUD_POINTS, Environment, Observation, episode_rng
from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.workers import map_in_processes

NAME = "demonstrations"
STREAM = "demonstrations"  # evaluation draws its episodes from a stream of another name
MAX_ATTEMPTS = 20
SPEED = (0.12, 0.25)  # m/s
DETOUR = 0.03  # metres, standard deviation per axis of the point on the long way
APPROACH_OFFSET = 0.02  # metres, at most, beside the object or the bin
APPROACH_YAW = np.radians(10.0)
CENTRED_HEIGHT = (0.02, 0.05)  # metres above the goal, where the approach has been corrected
FINAL_HOLD = 3  # steps at the end of the motion

FEATURES = {
    "steps": {
        "observation": {
            "ee_position": Feature("float32", (3,), "measured tool position, m, base frame"),
            "ee_rotation": Feature(
                "float32", (4,), "measured tool rotation, wxyz; z approaches, fingers open along y"
            ),
            "gripper_width": Feature("float32", (), "measured opening, 1 = open"),
            "cloud": Feature(
                "float16", (CLOUD_POINTS, 3), "points, m, base frame, robot removed"
            ),
        },
        "action": Feature(
            "float32", (8,), "tool pose commanded for 0.1 s ahead: xyz m, wxyz; gripper, 1 = open"
        ),
        "language_instruction": Feature("text"),
        "is_first": Feature("bool"),
        "is_last": Feature("bool"),
        "is_terminal": Feature("bool"),
        "reward": Feature("float32"),
        "discount": Feature("float32"),
    },
    "episode_metadata": {
        "task": Feature("text"),
        "seed": Feature("int64"),
        "episode": Feature("int64", (), "which of the seed's demonstrations of the task"),
        "success": Feature("bool"),
    },
}
_DESCRIPTION = (
    "Scripted demonstrations of table-top tasks by a Panda arm in MuJoCo, 10 Hz. Base frame: the "
    "robot's base, x forward, z up, table top at z = 0."
)


def define_flags() -> None:
    """Flags of `bridgeact demos`."""
    names = ", ".join(task_table.TASKS)
    flags.DEFINE_string("task", "all", f"{names} or all, interleaved")
    flags.DEFINE_integer("episodes", None, "how many, over all tasks", lower_bound=1)
    flags.DEFINE_string("out", None, "RLDS directory to write")
    flags.DEFINE_integer("seed", 0, "seed; independent of evaluation's seeds", lower_bound=0)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1)
    flags.DEFINE_enum("file_format", "array_record", ["array_record", "tfrecord"], "of the shards")
    flags.DEFINE_bool("overwrite", False, "replace an existing dataset")
    flags.mark_flags_as_required(["episodes", "out"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact demos`."""
    del argv
    args = flags.FLAGS
    discarded = write_demos(
        args.task, args.episodes, args.out, seed=args.seed, workers=args.workers,
        file_format=args.file_format, overwrite=args.overwrite,
    )
    print(f"{args.episodes} demonstrations in {args.out}; {discarded} failed and were discarded")


def write_demos(
    task: str, episodes: int, out: str | os.PathLike, *, seed: int = 0, workers: int = 2,
    file_format: str = "array_record", overwrite: bool = False,
) -> int:
    """Write demonstrations as an RLDS dataset and return how many failed and were left out.

    The same arguments give the same episodes in the same order, whatever `workers`.

    Args:
      task: a task's name, or "all" for every task in turn.
      episodes: how many to write, over all tasks.
      out: the directory to make, of `file_format`; see `write_rlds`.
    """
    names = list(task_table.TASKS) if task == "all" else [task_table.find_task(task).name]
    if episodes < 1:
        raise UsageError(f"demos: {episodes} episodes: at least 1 is needed")
    jobs = [(names[i % len(names)], seed, i // len(names)) for i in range(episodes)]
    discarded = 0

    def stream() -> Iterator[dict[str, Any]]:
        nonlocal discarded
        with Progress(episodes, "episodes", "demonstrations") as progress:
            for episode, failures in map_in_processes(_demonstration, jobs, workers):
                discarded += failures
                progress.update(discarded=discarded)
                yield episode

    write_rlds(
        out, NAME, stream(), FEATURES, description=_DESCRIPTION, file_format=file_format,
        overwrite=overwrite,
    )
    return discarded


def record(env: Environment, seed: int, episode: int) -> dict[str, Any] | None:
    """One demonstration of the environment's task as an RLDS episode; None if it failed."""
    observation = env.reset(seed, episode, stream=STREAM)
    rng = episode_rng("variation", env.task.name, seed, episode)
    plan = vary(env.waypoints(), rng)
    targets = time_guidance(guidance_of(plan), speed=rng.uniform(*SPEED))
    targets = [np.concatenate([x, np.repeat(x[-1:], FINAL_HOLD, axis=0)]) for x in targets]
    steps = []
    for position, rotation, gripper in zip(*targets, strict=True):
        command = np.concatenate([position, rotation, [gripper]])
        steps.append(_step(env, observation, command))
        observation = env.step(position, rotation, gripper)
    if not env.success:
        return None
    steps.append(_step(env, observation, command))
    steps[0]["is_first"] = True
    steps[-1] |= {"is_last": True, "is_terminal": True, "reward": 1.0, "discount": 0.0}
    metadata = {"task": env.task.name, "seed": seed, "episode": episode, "success": True}
    return {"steps": steps, "episode_metadata": metadata}


def vary(plan: Waypoints, rng: np.random.Generator) -> Waypoints:
    """The plan with a detour on every long way and approaches that begin beside their goal.

    An approach is a segment straight down to a gripper event or to the end.
    """
    rows = [(plan.position[0], plan.rotation[0], plan.gripper[0])]
    for i in range(1, int(plan.count)):
        position, rotation, gripper = plan.position[i], plan.rotation[i], plan.gripper[i]
        before = plan.position[i - 1]
        descends = i > 1 and before[2] - position[2] > 0.05
        if descends:
            over = position + np.array([0, 0, rng.uniform(*CENTRED_HEIGHT)], np.float32)
            rows.append((over, rotation, plan.gripper[i - 1]))
        elif np.linalg.norm(position[:2] - before[:2]) > 0.05:
            via = (before + position) / 2 + DETOUR * rng.standard_normal(3)
            via[2] = max(via[2], min(before[2], position[2]))
            rows.append((via, plan.rotation[i - 1], plan.gripper[i - 1]))
        begins_descent = i + 1 < plan.count and position[2] - plan.position[i + 1][2] > 0.05
        if begins_descent:
            angle, radius = rng.uniform(-np.pi, np.pi), APPROACH_OFFSET * np.sqrt(rng.uniform())
            position = position + radius * np.array([np.cos(angle), np.sin(angle), 0.0])
            rotation = _turned(rotation, rng.uniform(-APPROACH_YAW, APPROACH_YAW))
        rows.append((position, rotation, gripper))
    columns = zip(*rows, strict=True)
    position, rotation, gripper = (np.array(column, np.float32) for column in columns)
    return Waypoints(position, rotation, gripper, np.int32(len(gripper)))


def _turned(rotation: np.ndarray, yaw: float) -> np.ndarray:
    """The rotation turned about the vertical."""
    cos, sin = np.cos(yaw / 2), np.sin(yaw / 2)
    w, x, y, z = rotation
    return np.array([cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w])


def _step(env: Environment, observation: Observation, command: np.ndarray) -> dict[str, Any]:
    return {
        "observation": {
            "ee_position": observation.position,
            "ee_rotation": observation.rotation,
            "gripper_width": observation.gripper_width,
            "cloud": env.cloud(),
        },
        "action": command,
        "language_instruction": env.instruction,
        "is_first": False,
        "is_last": False,
        "is_terminal": False,
        "reward": 0.0,
        "discount": 1.0,
    }


_environments: dict[str, Environment] = {}  # of this process


def _demonstration(job: tuple[str, int, int]) -> tuple[dict[str, Any], int]:
    """The job's first success, and the number of failures before it."""
    name, seed, number = job
    env = _environments.setdefault(name, Environment(name))
    for attempt in range(MAX_ATTEMPTS):
        episode = record(env, seed, number * MAX_ATTEMPTS + attempt)
        if episode is not None:
            return episode, attempt
    raise UserError(f"{name}: {MAX_ATTEMPTS} demonstrations failed in a row (seed {seed})")
