"""A guard's verdict in words that a planner can act on."""

from dataclasses import dataclass

KINDS = (
    "not_finite", "workspace", "rotation", "leap", "gripper_order", "off_object", "collision",
    "unreachable", "speed",
)


@dataclass(frozen=True)
class Refusal:
    """Why a plan is refused: one of `KINDS`, and words.

    The words number waypoints as the plan does, its target last, and name no coordinates: a planner
    thinks in its camera's frame.
    """

    kind: str
    reason: str


def centimetres(metres: float) -> str:
    """A length in words."""
    return f"{100 * metres:.0f} cm"
