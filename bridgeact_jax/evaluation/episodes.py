"""An episode of a condition: its world, its keys, and what is done and seen in it."""

import zlib

import jax
import numpy as np

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.planning.oracle import calibration_offset
from bridgeact_jax.sim.environment import Environment, Observation


def environment(condition: Condition, task: str) -> Environment:
    """The task in the condition's world."""
    return Environment(task, arm=condition.arm, disturbance=condition.world)


def act(env: Environment, command: np.ndarray) -> Observation:
    """One control step to the (8,) command: position, rotation, gripper."""
    return env.step(command[:3], command[3:7], float(command[7]))


def cloud(env: Environment, condition: Condition, episode: int) -> np.ndarray:
    """(M, 3) float16: the cloud that the policy sees in the episode `env` is in."""
    offset = camera_offset(env, condition, episode)
    return (env.cloud() + offset).astype(np.float16) if offset.any() else env.cloud()


def camera_offset(env: Environment, condition: Condition, episode: int) -> np.ndarray:
    """(3,) metres by which all that the cameras see lies beside the truth."""
    return calibration_offset(plan_key(env, condition, episode), condition.cloud_errors)


def plan_key(env: Environment, condition: Condition, episode: int) -> jax.Array:
    """What the planner's errors are drawn from."""
    return jax.random.fold_in(_key(condition, env.task.name, episode), 0)


def sample_key(condition: Condition, task: str, episode: int) -> jax.Array:
    """What the policy's samples are drawn from."""
    return jax.random.fold_in(_key(condition, task, episode), 1)


def _key(condition: Condition, task: str, episode: int) -> jax.Array:
    key = jax.random.key(condition.seed)
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(task.encode())), episode)
