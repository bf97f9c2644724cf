"""The UR5e, six joints, with the parallel gripper of `gripper`.

Link lengths, masses and speeds are the maker's; the shapes are capsules and cylinders along them.
The base is turned by half a turn, so that the arm reaches forwards with its first joint at zero.
"""

import mujoco
import numpy as np

from bridgeact_jax.sim.arms import gripper
from bridgeact_jax.sim.arms.arm import (
    ARMATURE,
    COLLISION_GROUP,
    ROOT,
    VISUAL_GROUP,
    Arm,
    add_servo,
    turn,
)

# Denavit-Hartenberg, per joint: d m, a m, alpha rad.
DH = (
    (0.1625, 0.0, np.pi / 2),
    (0.0, -0.425, 0.0),
    (0.0, -0.3922, 0.0),
    (0.1333, 0.0, np.pi / 2),
    (0.0997, 0.0, -np.pi / 2),
    (0.0996, 0.0, 0.0),
)
# Per joint: name, mass in kg, range in rad, position gain in N m / rad, torque limit in N m. The
# ranges keep to one posture (elbow up, hand below the wrist); the torques lie below the maker's
# (150 and 28 N m), as for the Panda.
_JOINTS = (
    ("shoulder_pan", 3.761, (-2.9, 2.9), 4500, 60),
    ("shoulder_lift", 8.058, (-3.1, 0.1), 4500, 60),
    ("elbow", 2.846, (0.05, 2.9), 4500, 60),
    ("wrist_1", 1.37, (-3.1, 0.3), 2000, 14),
    ("wrist_2", 1.3, (-2.9, -0.2), 2000, 14),
    ("wrist_3", 0.365, (-5.0, 1.5), 2000, 14),
)
# Per joint: capsules or cylinders (start, end, radius) in the frame of its body, whose z axis is
# the joint's.
_UPPER_ARM_OFFSET, _FOREARM_OFFSET = 0.138, 0.007
_SHAPES = (
    (((0, 0, 0.09), (0, 0, 0.1625), 0.06), ((0, 0, 0.1625), (0, -0.085, 0.1625), 0.06)),
    (
        ((0, 0, _UPPER_ARM_OFFSET), (-0.425, 0, _UPPER_ARM_OFFSET), 0.052),
        ((-0.425, 0, _UPPER_ARM_OFFSET), (-0.425, 0, 0.055), 0.055),
    ),
    (((0, 0, _FOREARM_OFFSET), (-0.3922, 0, _FOREARM_OFFSET), 0.042),),
    (((0, 0, 0.045), (0, 0, 0.1333), 0.04),),
    (((0, 0, 0.0), (0, 0, 0.0997), 0.04),),
    (((0, 0, 0.04), (0, 0, 0.0996), 0.0375),),
)
_COLLIDES_FROM = 4

_LINK_COLOUR, _JOINT_COLOUR = (0.72, 0.75, 0.78, 1), (0.28, 0.45, 0.62, 1)


def add_ur5e(spec: mujoco.MjSpec, visual: bool, fingers: bool) -> None:
    """Add the robot; pictures show the shapes that physics and rays use."""
    spec.compiler.degree = False
    look = dict(group=VISUAL_GROUP if visual else COLLISION_GROUP)
    body = spec.worldbody.add_body(name=ROOT, quat=turn((0, 0, 1), np.pi))
    _add_capsule(body, (0, 0, 0), (0, 0, 0.085), 0.075, 4.0, 0, rgba=_LINK_COLOUR, **look)
    pos, quat = (0, 0, 0), (1, 0, 0, 0)
    for i, (name, mass, joint_range, gain, torque) in enumerate(_JOINTS):
        body = body.add_body(name=name, pos=pos, quat=quat, gravcomp=1)
        body.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, 1), limited=1,
            range=joint_range, armature=ARMATURE,
        )
        colour = _LINK_COLOUR if i in (1, 2) else _JOINT_COLOUR
        for start, end, radius in _SHAPES[i]:
            _add_capsule(
                body, start, end, radius, mass / len(_SHAPES[i]), int(i >= _COLLIDES_FROM),
                rgba=colour, **look,
            )
        if fingers:
            add_servo(spec, name, joint_range, gain, None, torque)
        d, a, alpha = DH[i]
        pos, quat = (a, 0, d), turn((1, 0, 0), alpha)
    gripper.add_gripper(spec, body, pos, quat, fingers, look["group"])


def _add_capsule(body, start, end, radius, mass, contype, **look) -> None:
    geom = body.add_geom(
        name=f"{body.name}_capsule{len(body.geoms)}", type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=(radius, 0, 0), mass=mass, contype=contype, conaffinity=0, **look,
    )
    geom.fromto = (*start, *end)


UR5E = Arm(
    name="ur5e",
    joints=tuple(joint[0] for joint in _JOINTS),
    home=(-0.28, -1.6, 2.0, -1.97, -np.pi / 2, -1.85),
    max_joint_speed=np.pi,
    max_width=gripper.MAX_WIDTH,
    floor=gripper.FLOOR,
    add=add_ur5e,
)
