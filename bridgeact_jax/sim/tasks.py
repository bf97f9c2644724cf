"""The tasks: where things lie, what a perfect planner would say, when it is done."""

from dataclasses import dataclass

import numpy as np

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.sim import scene

WORKSPACE_LOW, WORKSPACE_HIGH = np.array([0.35, -0.25]), np.array([0.65, 0.25])
START_LOW, START_HIGH = np.array([0.40, -0.15, 0.25]), np.array([0.60, 0.15, 0.35])
START_YAW, OBJECT_YAW, BIN_YAW = np.radians([15.0, 40.0, 20.0])
DISTRACTOR_DISTANCE = (0.10, 0.15)

CLEARANCE = 0.10  # of the pre-grasp above the grasp
GRASP_HEIGHT = 0.030  # of the tool frame, so that the fingers end 1.9 cm below the cube's top
LIFT_HEIGHT = 0.20
BIN_APPROACH = 0.20  # of the tool frame above the table, over the bin
RELEASE_HEIGHT = 0.040
RETREAT_HEIGHT = 0.20

REACH_ABOVE_POST, REACH_TOLERANCE, REACH_HOLD = 0.03, 0.025, 0.3
LIFT_SUCCESS, LIFT_HOLD = 0.10, 0.5
WRONG_LIFT = 0.03
REST_SPEED = 0.02


@dataclass(frozen=True)
class Task:
    """A task's fixed facts. `time_limit` in seconds; `horizon` is short, middle or long."""

    name: str
    horizon: str
    time_limit: float
    instruction: str
    posts: bool = False
    with_bin: bool = False


TASKS = {
    task.name: task
    for task in (
        Task("reach", "short", 8.0, "reach above the red post", posts=True),
        Task("lift", "short", 12.0, "lift the red cube"),
        Task(
            "pick_and_place", "middle", 16.0, "put the red cube into the green bin", with_bin=True
        ),
    )
}


def find_task(name: str) -> Task:
    """The task called `name`, or a `UsageError` that names the nearest one."""
    if name not in TASKS:
        raise UsageError(f"unknown task '{name}': {nearest(name, TASKS)}")
    return TASKS[name]


@dataclass(frozen=True)
class Layout:
    """One episode's start: (x, y) in metres and yaw in radians, base frame."""

    start: np.ndarray  # (3,) tool position
    start_yaw: float
    target: np.ndarray
    target_yaw: float
    distractor: np.ndarray
    distractor_yaw: float
    bin: np.ndarray
    bin_yaw: float


def draw_layout(task: Task, rng: np.random.Generator) -> Layout:
    """Random poses: the distractor 10-15 cm from the target, nothing overlaps, all within reach."""
    while True:
        target = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
        direction, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*DISTRACTOR_DISTANCE)
        distractor = target + distance * np.array([np.cos(direction), np.sin(direction)])
        bin_centre = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
        bin_yaw = rng.uniform(-BIN_YAW, BIN_YAW)
        if np.any(distractor < WORKSPACE_LOW) or np.any(distractor > WORKSPACE_HIGH):
            continue
        if task.with_bin and (
            _beside_bin(target, bin_centre, bin_yaw) < 0.15
            or _beside_bin(distractor, bin_centre, bin_yaw) < 0.13
        ):
            continue
        return Layout(
            start=rng.uniform(START_LOW, START_HIGH),
            start_yaw=rng.uniform(-START_YAW, START_YAW),
            target=target,
            target_yaw=rng.uniform(-OBJECT_YAW, OBJECT_YAW),
            distractor=distractor,
            distractor_yaw=rng.uniform(-OBJECT_YAW, OBJECT_YAW),
            bin=bin_centre,
            bin_yaw=bin_yaw,
        )


def in_bin_frame(point: np.ndarray, bin_centre: np.ndarray, bin_yaw: float) -> np.ndarray:
    """(2,) metres along the bin's own axes, from its centre."""
    cos, sin = np.cos(bin_yaw), np.sin(bin_yaw)
    return np.array([[cos, sin], [-sin, cos]]) @ (point[:2] - bin_centre)


def _beside_bin(point, bin_centre, bin_yaw) -> float:
    return np.abs(in_bin_frame(point, bin_centre, bin_yaw)).max()


def yaw_quaternion(yaw: float) -> np.ndarray:
    """(4,) wxyz of a turn about the vertical."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def tool_down(yaw: float) -> np.ndarray:
    """(4,) wxyz of the tool pointing down, its fingers opening along y turned by `yaw`."""
    return np.array([0.0, np.cos(yaw / 2), np.sin(yaw / 2), 0.0])


def goal_above(post: np.ndarray) -> np.ndarray:
    """(3,) the point to reach above a post that stands at (x, y)."""
    return np.array([*post[:2], scene.POST_HEIGHT + REACH_ABOVE_POST])


def plan(
    task: Task, target: np.ndarray, target_yaw: float, layout: Layout
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """The remaining waypoints of a perfect plan: (position, rotation, gripper) each.

    Args:
      target: (3,) where the target's centre (a post: its foot) is now.
    """
    over = tool_down(target_yaw)
    if task.posts:
        goal = goal_above(target)
        return [(goal + [0, 0, CLEARANCE], over, 1.0), (goal, over, 1.0)]
    x, y = target[:2]
    grasp = np.array([x, y, target[2] - scene.CUBE_HALF + GRASP_HEIGHT])
    steps = [
        (grasp + [0, 0, CLEARANCE], over, 1.0),
        (grasp, over, 0.0),
        (grasp + [0, 0, LIFT_HEIGHT], over, 0.0),
    ]
    if task.with_bin:
        turn = tool_down(layout.bin_yaw)
        steps += [
            (np.array([*layout.bin, BIN_APPROACH]), turn, 0.0),
            (np.array([*layout.bin, RELEASE_HEIGHT]), turn, 1.0),
            (np.array([*layout.bin, RETREAT_HEIGHT]), turn, 1.0),
        ]
    return steps
