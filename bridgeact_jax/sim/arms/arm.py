"""What the simulator needs to know of an arm, and the parts that arms are built from.

Base frame: the arm's base at the origin, x forward, z up. The tool frame (site `TCP_SITE`) lies
between the fingertips: z is the approach direction and the fingers open along y. In a model the
arm's joints come first, then the two fingers, which one actuator moves together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

TCP_SITE = "tcp"
ROOT = "link0"  # name of the body that carries the whole arm
LEFT_FINGER, RIGHT_FINGER = "finger_left", "finger_right"
COLLISION_GROUP, VISUAL_GROUP = 3, 2

ARMATURE = 0.1
_RAMP_LAG = 0.03  # seconds by which a joint trails a moving target: damping over stiffness
_GRIP_FORCE = 40.0  # newtons, shared by both fingers


@dataclass(frozen=True)
class Arm:
    """An arm with its gripper.

    `add(spec, visual, fingers)` adds it to the world body of a model under construction; `visual`
    asks for what pictures show, and without `fingers` (and actuators) it is the kinematic chain
    that inverse kinematics needs.
    """

    name: str
    joints: tuple[str, ...]  # names, base first
    home: tuple[float, ...]  # radians; the tool points down over the middle of the table
    max_joint_speed: float  # rad/s
    max_width: float  # metres between the fingers when open
    floor: float  # metres; lowest height of the tool frame that keeps the fingers off the table
    add: Callable[[mujoco.MjSpec, bool, bool], None]

    @property
    def finger_range(self) -> float:
        """Metres that each finger moves."""
        return self.max_width / 2


def add_servo(
    spec: mujoco.MjSpec, joint: str, ctrlrange: tuple[float, float], stiffness: float,
    damping: float | None, limit: float,
) -> None:
    """A position servo on a joint; its force never exceeds `limit`.

    Where `damping` is None the joint trails a moving target by the same time in every arm.
    """
    damping = stiffness * _RAMP_LAG if damping is None else damping
    actuator = spec.add_actuator(
        name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrllimited=1,
        ctrlrange=ctrlrange, forcelimited=1, forcerange=(-limit, limit),
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
    )
    actuator.gainprm[0] = stiffness
    actuator.biasprm[:3] = (0, -stiffness, -damping)


def add_finger(hand, name: str, pos, quat, travel: float):
    """A massless body that slides along its own y axis by at most `travel` metres."""
    finger = hand.add_body(name=name, pos=pos, quat=quat, gravcomp=1)
    finger.add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 1, 0), limited=1,
        range=(0, travel), armature=0.1, damping=200,
    )
    return finger


def add_finger_box(finger, part: str, pos, size, *, mass: float, friction: float, **look) -> None:
    """A box of a finger, firm in contact."""
    finger.add_geom(
        name=f"{finger.name}_{part}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size,
        mass=mass, contype=1, conaffinity=0, condim=4, friction=(friction, 0.005, 0.0001),
        priority=1, solref=(0.005, 1), **look,
    )


def couple_fingers(spec: mujoco.MjSpec, travel: float) -> None:
    """Both fingers move alike, driven by one servo."""
    equality = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT, name1=LEFT_FINGER, name2=RIGHT_FINGER,
        objtype=mujoco.mjtObj.mjOBJ_JOINT, solref=(0.005, 1),
    )
    equality.data[:2] = (0, 1)
    add_servo(spec, LEFT_FINGER, (0, travel), 4000, 150, _GRIP_FORCE)


def turn(axis, angle: float) -> np.ndarray:
    """(4,) wxyz of a turn about a unit axis."""
    quat = np.empty(4)
    mujoco.mju_axisAngle2Quat(quat, np.asarray(axis, float), angle)
    return quat
