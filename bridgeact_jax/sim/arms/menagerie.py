"""Arms of a checkout of MuJoCo Menagerie, each with the parallel gripper of `gripper`.

The environment variable MENAGERIE_ROOT names the checkout; nothing is downloaded. Geometry, masses
and joint ranges are the model's; servos are as stiff as the other arms', gravity is compensated,
and only the last links can touch things.
"""

import dataclasses
import functools
import os
from pathlib import Path

import mujoco
import numpy as np

from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.sim.arms import gripper
from bridgeact_jax.sim.arms.arm import (
    ARMATURE,
    COLLISION_GROUP,
    ROOT,
    TCP_SITE,
    VISUAL_GROUP,
    Arm,
    add_servo,
    turn,
)

PREFIX, VARIABLE = "menagerie:", "MENAGERIE_ROOT"
_FLANGE = "attachment_site"  # what Menagerie calls it
_OURS = "arm_"  # before all names of the model
_COLLIDING_LINKS = 2  # the last ones
# Position gain in N m / rad and torque limit in N m, of the first half of the joints and the rest.
_SERVOS = ((4500, 60), (2000, 20))
_MAX_JOINT_SPEED = 2.175  # rad/s
_MIDDLE = np.array([0.48, 0.0, 0.3])
_REACH = [  # position and yaw of the tool, pointing down, that an arm must get to
    (np.array([x, y, z]), yaw)
    for z in (0.02, 0.3) for x in (0.35, 0.65) for y in (-0.25, 0.25) for yaw in (-0.7, 0.7)
]
_MOUNTS = (0.0, np.pi, np.pi / 2, -np.pi / 2)  # turns of the gripper on the flange
_STARTS, _REACHED = 10, 1e-3  # random postures tried; metres


def find_menagerie_arm(name: str) -> Arm:
    """The arm called "menagerie:FOLDER" or "menagerie:FOLDER/FILE".

    Raises UserError where there is no checkout, or no arm of that name that can do the tasks.
    """
    root = os.environ.get(VARIABLE)
    if not root or not Path(root).is_dir():
        raise UserError(
            f"arm '{name}': set {VARIABLE} to a checkout of "
            "https://github.com/google-deepmind/mujoco_menagerie"
        )
    return _find(name, root)


@functools.cache
def _find(name: str, root: str) -> Arm:
    path = _model_file(name, Path(root))
    try:
        return _fit(name, path)
    except ValueError as error:  # from MuJoCo: what is wrong with the file, on several lines
        raise UserError(f"arm '{name}': {path}: {' '.join(str(error).split())}") from None


def _fit(name: str, path: Path) -> Arm:
    keys = mujoco.MjSpec.from_file(str(path)).keys
    for mount in _MOUNTS:  # as the gripper is screwed on, so are the limits of its yaw
        model = _chain(path, mount)
        joints = tuple(model.joint(i).name for i in range(model.njnt))
        if np.any(model.jnt_type != mujoco.mjtJoint.mjJNT_HINGE) or not 6 <= len(joints) <= 8:
            raise UserError(f"arm '{name}': {path.name} has not six to eight hinges alone")
        neutral = keys[0].qpos if keys else model.jnt_range.mean(axis=1)
        arm = Arm(
            name=name, joints=joints, home=tuple(float(x) for x in neutral),
            max_joint_speed=_MAX_JOINT_SPEED, max_width=gripper.MAX_WIDTH, floor=gripper.FLOOR,
            add=functools.partial(_add, path, mount),
        )
        home = _find_home(arm, model)
        if home is not None:
            return dataclasses.replace(arm, home=tuple(float(x) for x in home))
    raise UserError(f"arm '{name}': it cannot reach the tasks' workspace pointing down")


def _model_file(name: str, root: Path) -> Path:
    folder, _, file = name.removeprefix(PREFIX).partition("/")
    if not (root / folder).is_dir() or not folder:
        known = [path.name for path in root.iterdir() if any(path.glob("*.xml"))]
        raise UsageError(f"unknown arm '{name}': {nearest(folder, known)}")
    models = {
        path.stem: path for path in sorted((root / folder).glob("*.xml"))
        if _FLANGE in path.read_text(encoding="utf-8")
    }
    if not models:
        raise UserError(f"arm '{name}': no model there has a site '{_FLANGE}' for a gripper")
    if file and file not in models:
        raise UsageError(f"unknown arm '{name}': {nearest(file, models)}")
    if not file and len(models) > 1:
        raise UsageError(f"arm '{name}': say which, {folder}/" + f", {folder}/".join(models))
    return models[file] if file else next(iter(models.values()))


def _spec(path: Path) -> mujoco.MjSpec:
    """The model alone, as it is moved in this simulator."""
    spec = mujoco.MjSpec.from_file(str(path))
    for part in (*spec.actuators, *spec.keys, *spec.sensors):
        spec.delete(part)
    for kind, parts in (("joint", spec.joints), ("geom", spec.geoms)):
        for number, part in enumerate(parts):
            part.name = part.name or f"{kind}{number}"
    flange = spec.site(_FLANGE).parent
    touching = [flange, *_ancestors(flange)][:_COLLIDING_LINKS]
    names = {body.name for body in touching}
    for body in spec.bodies[1:]:
        body.gravcomp = 1
        for joint in body.joints:
            joint.armature, joint.damping, joint.frictionloss = ARMATURE, np.zeros(3), 0
        for geom in body.geoms:
            solid = bool(geom.contype or geom.conaffinity) and body.name in names
            geom.contype, geom.conaffinity = int(solid), 0
    return spec


def _ancestors(body) -> list:
    above = []
    while body.parent is not None and body.parent.name != "world":
        body = body.parent
        above.append(body)
    return above


def _add(path: Path, mount: float, spec: mujoco.MjSpec, visual: bool, fingers: bool) -> None:
    spec.compiler.degree = False
    arm, ours = _spec(path), spec.option
    for option in ("timestep", "integrator", "cone", "impratio"):
        setattr(arm.option, option, getattr(ours, option))
    root = spec.worldbody.add_frame().attach_body(arm.worldbody.first_body(), _OURS, "")
    root.name = ROOT
    joints, flange = list(spec.joints), spec.site(_OURS + _FLANGE)
    group = VISUAL_GROUP if visual else COLLISION_GROUP
    if fingers:
        for i, joint in enumerate(joints):
            gain, torque = _SERVOS[2 * i >= len(joints)]
            add_servo(spec, joint.name, tuple(joint.range), gain, None, torque)
    quat = np.empty(4)
    mujoco.mju_mulQuat(quat, flange.quat / np.linalg.norm(flange.quat), turn((0, 0, 1), mount))
    gripper.add_gripper(spec, flange.parent, flange.pos, quat, fingers, group)


def _chain(path: Path, mount: float) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    _add(path, mount, spec, False, False)
    return spec.compile()


def _find_home(arm: Arm, model: mujoco.MjModel) -> np.ndarray | None:
    """A posture over the middle of the table, the tool pointing down, links above the table.

    From it the arm reaches all of the workspace. The search begins at the arm's provisional home.
    """
    from bridgeact_jax.sim.kinematics import Kinematics  # which needs the arms

    solver, data = Kinematics(arm), mujoco.MjData(model)

    def reach(start: np.ndarray, goal: np.ndarray, yaw: float) -> np.ndarray | None:
        down = np.array([0.0, np.cos(yaw / 2), np.sin(yaw / 2), 0.0])
        joints = data.qpos[:] = solver.solve(goal, down, start, iterations=60)
        mujoco.mj_kinematics(model, data)
        tool = data.site(TCP_SITE)
        near = np.linalg.norm(tool.xpos - goal) < _REACHED and tool.xmat[8] < -0.999
        return joints if near and data.xpos[2:, 2].min() > 0.1 else None

    low, high = np.clip(model.jnt_range, -np.pi, np.pi).T
    others = np.random.default_rng(0).uniform(low, high, (_STARTS, len(low)))
    for start in (np.array(arm.home), *others):
        home = reach(np.clip(start, *model.jnt_range.T), _MIDDLE, 0.0)
        if home is not None and all(reach(home, *goal) is not None for goal in _REACH):
            return home
    return None
