"""The scene of a task: the robot, the table and the task's things, compiled once."""

import functools

import mujoco
import numpy as np

from bridgeact_jax.sim.arms import COLLISION_GROUP, VISUAL_GROUP, find_arm
from bridgeact_jax.sim.events import add_bodies
from bridgeact_jax.sim.objects import CONTACT, FRICTION
from bridgeact_jax.sim.tasks import find_task

TIMESTEP = 0.002
TABLE = "table"
_WOOD, _FLOOR = (0.80, 0.68, 0.52, 1), (0.36, 0.39, 0.43, 1)


@functools.cache
def load(
    task: str, arm: str = "panda", distractors: int = 0, obstacle: int = 0, *, visual: bool = False
) -> mujoco.MjModel:
    """The compiled model of a task with an arm, at nominal sizes. Copy it before writing to it.

    Args:
      task: name of the task.
      arm: name of the arm.
      distractors: number of additional objects.
      obstacle: 1 for a model with the post that rises.
      visual: the model for pictures: detailed meshes, lights and furniture.
    """
    spec = mujoco.MjSpec()
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 50
    find_arm(arm).add(spec, visual, True)
    find_task(task).build(spec)
    add_bodies(spec, distractors, obstacle)
    _add_table(spec, visual)
    return spec.compile()


def _add_table(spec: mujoco.MjSpec, visual: bool) -> None:
    plane = spec.worldbody.add_geom(
        name=TABLE, type=mujoco.mjtGeom.mjGEOM_PLANE, size=(2, 2, 0.1), contype=0, conaffinity=1,
        friction=FRICTION, solref=CONTACT, rgba=_WOOD,
    )
    if not visual:
        return
    plane.group = COLLISION_GROUP
    box, group = mujoco.mjtGeom.mjGEOM_BOX, VISUAL_GROUP
    furniture = dict(contype=0, conaffinity=0, group=group)
    spec.worldbody.add_geom(
        type=box, pos=(0.35, 0, -0.02), size=(0.55, 0.62, 0.02), rgba=_WOOD, **furniture
    )
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, pos=(0, 0, -0.75), size=(6, 6, 0.1), rgba=_FLOOR,
        **furniture,
    )
    for pos, strength in (((1.2, -1.0, 1.8), 0.5), ((0.6, 1.2, 1.8), 0.35)):
        spec.worldbody.add_light(
            pos=pos, dir=np.array([0.45, 0, 0]) - pos, diffuse=(strength,) * 3,
            specular=(0.1,) * 3, castshadow=False,
        )
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, rgb1=(0.80, 0.86, 0.92),
        rgb2=(0.55, 0.60, 0.66),
    )
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse = (0.38,) * 3, (0.30,) * 3
    spec.visual.quality.shadowsize = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
