"""From the gripper an expert wants, row by row, to the commands that are sent."""

from typing import NamedTuple

import numpy as np

from bridgeact_jax.geometry.guidance import is_open
from bridgeact_jax.sim.environment import CLOSE_BELOW, OPEN_ABOVE

STANDS = 8  # control steps: half as long again as progress takes to pass a gripper event


class Gripper(NamedTuple):
    """Commands (...,) float32, 1 = open, 0 = closed, and the control steps (...,) they have stood.
    """

    command: np.ndarray
    stood: np.ndarray


def settled(command: np.ndarray) -> Gripper:
    """Fingers that have come to rest under `command` (...,)."""
    command = np.array(command, np.float32)
    return Gripper(command, np.full(command.shape, STANDS))


def follow(gripper: Gripper, wanted: np.ndarray) -> Gripper:
    """A control step later, `wanted` (...,) in [0, 1] being asked for.

    A command changes beyond the hysteresis only, and not before it has stood for `STANDS` steps:
    until the fingers have settled and progress has passed the event, the expert's word may waver,
    and a hand that let go of what it had just closed upon would lose it.
    """
    wishes = np.where(is_open(gripper.command), wanted < CLOSE_BELOW, wanted > OPEN_ABOVE)
    switches = wishes & (gripper.stood >= STANDS)
    command = np.where(switches, 1 - gripper.command, gripper.command)
    return Gripper(command.astype(np.float32), np.where(switches, 0, gripper.stood) + 1)
