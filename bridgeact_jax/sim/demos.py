"""Scripted demonstrations in MuJoCo, written as an RLDS dataset with point clouds.

With --pictures each step also holds what the planner's camera sees (colour, depth) and the camera;
that needs a graphics library and about 33 kB a step more.

The expert knows the true poses. Its motion varies as a person's would: speed, detours on long ways,
approaches that begin beside their goal and are corrected before it. Only successes are kept.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from bridgeact_jax.datasets.rlds_writer import Feature, write_rlds
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.progress import Progress
from bridgeact_jax.sim import tasks as task_table
from bridgeact_jax.sim.environment import CLOUD_POINTS, Environment, Observation, episode_rng
from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.sim.variation import vary
from bridgeact_jax.workers import map_in_processes

NAME = "demonstrations"
STREAM = "demonstrations"  # evaluation draws its episodes from a stream of another name
MAX_ATTEMPTS = 20
SPEED = (0.12, 0.25)  # m/s
MAX_WAYPOINTS = 48
FINAL_HOLD = 3  # steps at the end of the motion
PICTURE_SIZE = 240  # pixels a side

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
PICTURES = {
    "image": Feature("png", (PICTURE_SIZE, PICTURE_SIZE, 3), "what the planner's camera sees"),
    "depth": Feature(
        "uint16", (PICTURE_SIZE, PICTURE_SIZE), "mm along the optical axis, 0 = unknown",
        compressed=True,
    ),
    "camera_intrinsics": Feature(
        "float32", (3, 3), "pixels from metres at z = 1; (0, 0) is the top left pixel's centre"
    ),
    "camera_pose": Feature(
        "float32", (4, 4), "of the camera in the base frame: x right, y down, z forward; m"
    ),
}
_DESCRIPTION = (
    "Scripted demonstrations of table-top tasks by a Panda arm in MuJoCo, 10 Hz. Base frame: the "
    "robot's base, x forward, z up, table top at z = 0."
)


def define_flags() -> None:
    """Flags of `bridgeact demos`."""
    names = ", ".join(task_table.TASKS)
    flags.DEFINE_string(
        "task", "all",
        f"names with commas between ({names}), or all but the held-out tasks; interleaved",
    )
    flags.DEFINE_integer("episodes", None, "how many, over all tasks", lower_bound=1)
    flags.DEFINE_string("out", None, "RLDS directory to write")
    flags.DEFINE_integer("seed", 0, "seed; independent of evaluation's seeds", lower_bound=0)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1)
    flags.DEFINE_bool("pictures", False, "also the pictures, depth and pose of a camera")
    flags.DEFINE_enum("file_format", "array_record", ["array_record", "tfrecord"], "of the shards")
    flags.DEFINE_bool("overwrite", False, "replace an existing dataset")
    flags.mark_flags_as_required(["episodes", "out"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact demos`."""
    del argv
    args = flags.FLAGS
    if args.task == "all":
        print(f"all tasks but those held out: {', '.join(task_table.HELD_OUT)}")
    discarded = write_demos(
        args.task, args.episodes, args.out, seed=args.seed, workers=args.workers,
        pictures=args.pictures, file_format=args.file_format, overwrite=args.overwrite,
    )
    print(f"{args.episodes} demonstrations in {args.out}; {discarded} failed and were discarded")


def write_demos(
    task: str, episodes: int, out: str | os.PathLike, *, seed: int = 0, workers: int = 2,
    pictures: bool = False, file_format: str = "array_record", overwrite: bool = False,
) -> int:
    """Write demonstrations as an RLDS dataset and return how many failed and were left out.

    The same arguments give the same episodes in the same order, whatever `workers`.

    Args:
      task: names of tasks with commas between, or "all": every task that is not held out.
      episodes: how many to write, over all tasks.
      out: the directory to make, of `file_format`; see `write_rlds`.
      pictures: also record `PICTURES`.
    """
    names = task_names(task)
    if episodes < 1:
        raise UsageError(f"demos: {episodes} episodes: at least 1 is needed")
    jobs = [(names[i % len(names)], seed, i // len(names), pictures) for i in range(episodes)]
    discarded = 0

    def stream() -> Iterator[dict[str, Any]]:
        nonlocal discarded
        with Progress(episodes, "episodes", "demonstrations") as progress:
            for episode, failures in map_in_processes(_demonstration, jobs, workers):
                discarded += failures
                progress.update(discarded=discarded)
                yield episode

    write_rlds(
        out, NAME, stream(), features(pictures=pictures), description=_DESCRIPTION,
        file_format=file_format, overwrite=overwrite,
    )
    return discarded


def features(*, pictures: bool) -> dict[str, Any]:
    """The dataset's features, with or without `PICTURES`."""
    if not pictures:
        return FEATURES
    observation = FEATURES["steps"]["observation"] | PICTURES
    return FEATURES | {"steps": FEATURES["steps"] | {"observation": observation}}


def task_names(task: str) -> list[str]:
    """The tasks that a command line's list means, see `write_demos`; `UsageError` if unknown."""
    if task == "all":
        return [name for name in task_table.TASKS if name not in task_table.HELD_OUT]
    return [task_table.find_task(name.strip()).name for name in task.split(",")]


def first_success(
    name: str, seed: int, number: int, *, pictures: bool = False, clouds: bool = True
) -> tuple[dict[str, Any], int]:
    """Demonstration `number` of a task, see `record`, and how many attempts at it failed before.

    Raises UserError if too many do.
    """
    env = environment(name)
    for attempt in range(MAX_ATTEMPTS):
        episode = record(
            env, seed, number * MAX_ATTEMPTS + attempt, pictures=pictures, clouds=clouds
        )
        if episode is not None:
            return episode, attempt
    raise UserError(f"{name}: {MAX_ATTEMPTS} demonstrations failed in a row (seed {seed})")


@functools.cache
def environment(name: str) -> Environment:
    """This process's environment of a task."""
    return Environment(name)


def record(
    env: Environment, seed: int, episode: int, *, pictures: bool = False, clouds: bool = True
) -> dict[str, Any] | None:
    """One demonstration of the environment's task as an RLDS episode; None if it failed.

    Args:
      pictures: each observation also holds `PICTURES`.
      clouds: each observation holds its cloud, which is half of the work.
    """
    steps = [
        _step(env, observation, command, pictures, clouds)
        for observation, command in demonstrate(env, seed, episode)
    ]
    if not env.success:
        return None
    steps[0]["is_first"] = True
    steps[-1] |= {"is_last": True, "is_terminal": True, "reward": 1.0, "discount": 0.0}
    metadata = {"task": env.task.name, "seed": seed, "episode": episode, "success": True}
    return {"steps": steps, "episode_metadata": metadata}


def demonstrate(
    env: Environment, seed: int, episode: int
) -> Iterator[tuple[Observation, np.ndarray]]:
    """A demonstration of the environment's task, step by step, whether it succeeds or not.

    Yields:
      what is measured and the command (8,) for it, which is sent afterwards: position m, rotation
      wxyz, gripper; in the end what is measured then, with the last command again.
    """
    observation = env.reset(seed, episode, stream=STREAM)
    rng = episode_rng("variation", env.task.name, seed, episode)
    plan = env.waypoints_of(vary(observation.position, env.plan(), rng))
    targets = time_guidance(guidance_of(plan, MAX_WAYPOINTS), speed=rng.uniform(*SPEED))
    targets = [np.concatenate([x, np.repeat(x[-1:], FINAL_HOLD, axis=0)]) for x in targets]
    for position, rotation, gripper in zip(*targets, strict=True):
        command = np.concatenate([position, rotation, [gripper]])
        yield observation, command
        observation = env.step(position, rotation, gripper)
    yield observation, command


def _step(
    env: Environment, observation: Observation, command: np.ndarray, pictures: bool, clouds: bool
) -> dict[str, Any]:
    observed = {
        "ee_position": observation.position,
        "ee_rotation": observation.rotation,
        "gripper_width": observation.gripper_width,
    }
    if clouds:
        observed["cloud"] = env.cloud()
    if pictures:
        observed |= seen(env)
    return {
        "observation": observed,
        "action": command,
        "language_instruction": env.instruction,
        "is_first": False,
        "is_last": False,
        "is_terminal": False,
        "reward": 0.0,
        "discount": 1.0,
    }


def seen(env: Environment) -> dict[str, np.ndarray]:
    """`PICTURES` of the environment now."""
    colours, depth, camera = env.view(PICTURE_SIZE)
    intrinsics = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, 3], pose[:3, :3] = env.cameras[0]
    return {
        "image": colours, "depth": np.rint(depth * 1000), "camera_intrinsics": intrinsics,
        "camera_pose": pose,
    }


def _demonstration(job: tuple[str, int, int, bool]) -> tuple[dict[str, Any], int]:
    name, seed, number, pictures = job
    return first_success(name, seed, number, pictures=pictures)
