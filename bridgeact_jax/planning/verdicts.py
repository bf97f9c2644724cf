"""A guard's verdict in words that a planner can act on."""

from dataclasses import dataclass

import numpy as np

KINDS = (
    "not_finite", "workspace", "rotation", "leap", "gripper_order", "off_object", "collision",
    "unreachable", "speed",
)


@dataclass(frozen=True)
class Refusal:
    """Why a plan is refused: one of `KINDS`, a sentence, and the place (3,) m if there is one."""

    kind: str
    reason: str
    where: np.ndarray | None = None


def centimetres(metres: float) -> str:
    """A length in words."""
    return f"{100 * metres:.0f} cm"


def coordinates(point: np.ndarray) -> str:
    """A point (3,) in metres, in words."""
    return "(" + ", ".join(f"{x:.2f}" for x in point) + ")"
