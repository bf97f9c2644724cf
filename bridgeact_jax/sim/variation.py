"""A scripted plan varied as a person's motion would be: detours, approaches corrected late."""

import mujoco
import numpy as np

from bridgeact_jax.sim.tasks.base import Step

LONG_WAY = 0.05  # metres over the table, from which on a way is bent
DETOUR = 0.03  # metres, standard deviation per axis of the point on a long way
APPROACH_OFFSET = 0.02  # metres, at most, beside an approach
APPROACH_TURN = np.radians(10.0)  # about the approach
CORRECTED = (0.02, 0.05)  # metres before the goal, where the approach has been corrected,
CORRECTED_BY = 0.6  # but no later than after this share of it


def vary(start: np.ndarray, plan: list[Step], rng: np.random.Generator) -> list[Step]:
    """The plan with bent ways to loose steps and approaches that begin beside their goal.

    An approach is the way from a loose step to one that is not. The steps that are not loose, and
    the last one, stay as they are.

    Args:
      start: (3,) metres, where the tool is.
    """
    varied: list[Step] = []
    before = Step(start, plan[0].rotation, plan[0].gripper)
    for i, step in enumerate(plan):
        over_table = np.linalg.norm(step.position[:2] - before.position[:2])
        if step.loose and over_table > LONG_WAY:
            via = (before.position + step.position) / 2 + DETOUR * rng.standard_normal(3)
            via[2] = max(via[2], min(before.position[2], step.position[2]))
            varied.append(Step(via, before.rotation, before.gripper, loose=True))
        following = plan[i + 1] if i + 1 < len(plan) else None
        if step.loose and following is not None and not following.loose:
            varied += _approach(step, following, rng)
        else:
            varied.append(step)
        before = step
    return varied


def _approach(step: Step, goal: Step, rng: np.random.Generator) -> list[Step]:
    """The loose step moved and turned a little, and the point where this has been corrected."""
    way = goal.position - step.position
    length = np.linalg.norm(way)
    along = way / max(length, 1e-9)
    beside = np.cross(along, rng.standard_normal(3))
    beside *= APPROACH_OFFSET * np.sqrt(rng.uniform()) / np.linalg.norm(beside)
    turned = step._replace(
        position=step.position + beside,
        rotation=_turned(step.rotation, rng.uniform(-APPROACH_TURN, APPROACH_TURN) * along),
    )
    corrected = goal.position - along * max(rng.uniform(*CORRECTED), (1 - CORRECTED_BY) * length)
    return [turned, Step(corrected, goal.rotation, step.gripper, loose=True)]


def _turned(rotation: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The rotation (4,) wxyz turned by a rotation vector (3,) in base axes."""
    angle = np.linalg.norm(turn)
    by = np.array([np.cos(angle / 2), *(np.sinc(angle / 2 / np.pi) / 2 * turn)])
    result = np.empty(4)
    mujoco.mju_mulQuat(result, by, rotation)
    return result
