"""Robot arms that can do the tasks: each stands at the origin of the base frame."""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.sim.arms.arm import COLLISION_GROUP, ROOT, TCP_SITE, VISUAL_GROUP, Arm
from bridgeact_jax.sim.arms.menagerie import PREFIX, find_menagerie_arm
from bridgeact_jax.sim.arms.panda import PANDA
from bridgeact_jax.sim.arms.ur5e import UR5E

__all__ = ["ARMS", "COLLISION_GROUP", "ROOT", "TCP_SITE", "VISUAL_GROUP", "Arm", "find_arm"]

ARMS = {arm.name: arm for arm in (PANDA, UR5E)}


def find_arm(name: str) -> Arm:
    """The arm called `name`, one of `ARMS` or "menagerie:FOLDER"; see `menagerie`.

    Raises UsageError with the nearest name, UserError where a Menagerie arm cannot be used.
    """
    if name.startswith(PREFIX):
        return find_menagerie_arm(name)
    if name not in ARMS:
        raise UsageError(f"unknown arm '{name}': {nearest(name, ARMS)}")
    return ARMS[name]
