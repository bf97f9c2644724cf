"""A toy scene in closed form: a table at zero, and boxes of points on it."""

import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.guard import Guard, Limits

LIMITS = Limits(np.array([0.2, -0.5, 0.0]), np.array([0.8, 0.5, 0.7]), joint_speed=2.0)
DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # the tool points down
SPOT = np.array([0.5, 0.1])  # where the box stands
CARD = np.array([0.4, -0.2])  # a free place


def near_enough(position, rotation):
    """An arm that reaches everything without moving a joint."""
    del rotation
    return np.zeros(len(position)), np.zeros((len(position), 6))


def box(centre, half=(0.02, 0.02, 0.02), spacing=0.005):
    """(n, 3) the surface points of a box."""
    axes = [np.linspace(-h, h, int(2 * h / spacing) + 1) for h in half]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)
    on_surface = np.any(np.isclose(np.abs(points), half), axis=1)
    return points[on_surface] + centre


def table(spacing=0.02):
    """(n, 3) the points of the table's top."""
    x, y = np.meshgrid(np.arange(0.2, 0.8, spacing), np.arange(-0.5, 0.5, spacing))
    return np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)


def cloud(*boxes):
    """(n, 3) the table and those boxes, by default one at `SPOT`."""
    return np.concatenate([table(), *(boxes or [box([*SPOT, 0.02])])])


def plan(*steps, gripper=1.0, start=(0.5, -0.1, 0.4)):
    """Waypoints of steps (x, y, z, gripper) from an open hand, or one that is as `gripper` says."""
    rows = np.array([(*start, gripper), *steps], float)
    count = len(rows)
    return Waypoints(rows[:, :3], np.tile(DOWN, (count, 1)), rows[:, 3], np.int32(count))


def lift(x=SPOT[0], y=SPOT[1], z=0.025):
    """Above the box, down to it with the hand closing, up."""
    return [(x, y, z + 0.1, 1.0), (x, y, z, 0.0), (x, y, z + 0.2, 0.0)]


def move(x=SPOT[0], y=SPOT[1], to=CARD):
    """The box taken and put down somewhere else."""
    a, b = to
    return [*lift(x, y), (a, b, 0.2, 0.0), (a, b, 0.03, 1.0), (a, b, 0.2, 1.0)]


GUARD = Guard(LIMITS, near_enough)
