"""The Panda, seven joints, with its hand.

Meshes come from the asset folder of the `gymnasium-robotics` package, which is located but never
imported.
"""

import functools
import importlib.util
from pathlib import Path

import mujoco
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.sim.arms.arm import (
    ARMATURE,
    COLLISION_GROUP,
    LEFT_FINGER,
    RIGHT_FINGER,
    ROOT,
    TCP_SITE,
    VISUAL_GROUP,
    Arm,
    add_finger,
    add_finger_box,
    add_servo,
    couple_fingers,
)

_FINGER_RANGE = 0.04

# Per joint: mesh, body position, body quaternion, mass in kg, range in rad, position gain in
# N m / rad, torque limit in N m. The limits lie well below what the arm can do (87 and 12 N m):
# like a real arm's collision thresholds, they bound how hard a wrong plan presses.
_UP, _DOWN = (1.0, 1.0, 0.0, 0.0), (1.0, -1.0, 0.0, 0.0)
_JOINTS = (
    ("link1", (0, 0, 0.333), (1, 0, 0, 0), 2.71, (-2.8973, 2.8973), 4500, 40),
    ("link2", (0, 0, 0), _DOWN, 2.73, (-1.7628, 1.7628), 4500, 40),
    ("link3", (0, -0.316, 0), _UP, 2.04, (-2.8973, 2.8973), 3500, 40),
    ("link4", (0.0825, 0, 0), _UP, 2.08, (-3.0718, -0.0698), 3500, 40),
    ("link5", (-0.0825, 0.384, 0), _DOWN, 3.00, (-2.8973, 2.8973), 2000, 12),
    ("link6", (0, 0, 0), _UP, 1.32, (-0.0175, 3.7525), 2000, 12),
    ("link7", (0.088, 0, 0), _UP, 0.40, (-2.8973, 2.8973), 2000, 12),
)
_NAMES = tuple(f"joint{i}" for i in range(1, 8))
_HAND_MASS, _FINGER_MASS = 0.73, 0.05
_LINK_COLOUR, _HAND_COLOUR, _FINGER_COLOUR = (
    (0.93, 0.94, 0.95, 1), (0.82, 0.84, 0.86, 1), (0.22, 0.23, 0.26, 1)
)


@functools.cache
def asset_folder() -> Path:
    """Folder with the Panda's collision and visual meshes; `UserError` if it is not installed."""
    found = importlib.util.find_spec("gymnasium_robotics")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "envs/assets/kitchen_franka/franka_assets/meshes"
        if folder.is_dir():
            return folder
    raise UserError(
        "the Panda's meshes are missing: install them with `pip install gymnasium-robotics`"
    )


def add_panda(spec: mujoco.MjSpec, visual: bool, fingers: bool) -> None:
    """Add the robot; physics and rays use the collision meshes, pictures the detailed ones."""
    spec.compiler.degree = False
    _add_meshes(spec, visual)
    body = spec.worldbody.add_body(name=ROOT)
    _add_link_geoms(body, "link0", 2.9, visual, collides=False)
    for i, (mesh, pos, quat, mass, joint_range, gain, torque) in enumerate(_JOINTS):
        body = body.add_body(name=mesh, pos=pos, quat=quat, gravcomp=1)
        body.add_joint(
            name=_NAMES[i], type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, 1), limited=1,
            range=joint_range, armature=ARMATURE,
        )
        _add_link_geoms(body, mesh, mass, visual, collides=i >= 5)
        if fingers:
            add_servo(spec, _NAMES[i], joint_range, gain, None, torque)

    turn = (np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8))
    hand = body.add_body(name="hand", pos=(0, 0, 0.107), quat=turn, gravcomp=1)
    _add_link_geoms(hand, "hand", _HAND_MASS, visual, colour=_HAND_COLOUR)
    hand.add_site(name=TCP_SITE, pos=(0, 0, 0.108), size=(0.005, 0.005, 0.005))
    if fingers:
        _add_finger(hand, LEFT_FINGER, (1, 0, 0, 0), visual)
        _add_finger(hand, RIGHT_FINGER, (0, 0, 0, 1), visual)
        couple_fingers(spec, _FINGER_RANGE)


def _add_meshes(spec: mujoco.MjSpec, visual: bool) -> None:
    folder = asset_folder()
    links = ["link0", *(joint[0] for joint in _JOINTS), "hand"]
    for name in links:
        mesh = spec.add_mesh(name=name, file=str(folder / f"collision/{name}.stl"))
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    if visual:
        for name in [*links, "finger"]:
            spec.add_mesh(name=f"{name}_visual", file=str(folder / f"visual/{name}.stl"))


def _add_link_geoms(body, mesh, mass, visual, collides=True, colour=_LINK_COLOUR) -> None:
    body.add_geom(
        name=f"{mesh}_collision", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, mass=mass,
        group=COLLISION_GROUP, rgba=colour, contype=int(collides), conaffinity=0,
    )
    if visual:
        _add_visual(body, mesh, colour)


def _add_visual(body, mesh, colour, quat=(1, 0, 0, 0)) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"{mesh}_visual", mass=0, group=VISUAL_GROUP,
        rgba=colour, contype=0, conaffinity=0, quat=quat,
    )


def _add_finger(hand, name, quat, visual) -> None:
    """A pad that grips and the block that carries it."""
    finger = add_finger(hand, name, (0, 0, 0.0584), quat, _FINGER_RANGE)
    boxes = (
        ("pad", (0, 0.0070, 0.0447), (0.0088, 0.0070, 0.0091), 2.0),
        ("block", (0, 0.0165, 0.0185), (0.0100, 0.0070, 0.0180), 0.5),
    )
    for part, pos, size, friction in boxes:
        add_finger_box(
            finger, part, pos, size, mass=_FINGER_MASS / 2, friction=friction,
            group=COLLISION_GROUP, rgba=_FINGER_COLOUR,
        )
    if visual:
        _add_visual(finger, "finger", _FINGER_COLOUR)


PANDA = Arm(
    name="panda",
    joints=_NAMES,
    home=(0.0, -0.35, 0.0, -2.25, 0.0, 1.9, np.pi / 4),
    max_joint_speed=2.175,  # the maker's limit for the slower joints
    max_width=2 * _FINGER_RANGE,
    floor=0.005,  # the fingers end 4.2 mm below the tool frame
    add=add_panda,
)
