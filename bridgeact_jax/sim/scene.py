"""Tables, posts, cubes and the bin: one shared model per kind of scene, poses live in the data."""

import functools

import mujoco
import numpy as np

from bridgeact_jax.sim import robot

TIMESTEP = 0.002
CUBE_HALF = 0.0225
POST_HALF, POST_HEIGHT = 0.015, 0.12
BIN_INNER_HALF, BIN_WALL, BIN_HEIGHT = 0.07, 0.01, 0.05

CONTACT = (0.006, 1.0)  # solref: firm, yet three timesteps long, so that pressing stays stable

TABLE = "table"
TARGET, DISTRACTOR, BIN = "target", "distractor", "bin"

_COLOURS = {TARGET: (0.86, 0.20, 0.16, 1), DISTRACTOR: (0.16, 0.42, 0.80, 1)}
_WOOD, _FLOOR, _BIN = (0.80, 0.68, 0.52, 1), (0.36, 0.39, 0.43, 1), (0.25, 0.58, 0.42, 1)


@functools.cache
def load(posts: bool, with_bin: bool, visual: bool = False) -> mujoco.MjModel:
    """The compiled model; never changed after this, so that environments can share it.

    Args:
      posts: target and distractor are fixed posts (mocap bodies) instead of free cubes.
      with_bin: add the bin (a mocap body).
      visual: the model for pictures: detailed meshes, lights and furniture.
    """
    spec = mujoco.MjSpec()
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 50
    robot.add_panda(spec, visual=visual)
    for name in (TARGET, DISTRACTOR):
        _add_post(spec, name) if posts else _add_cube(spec, name)
    if with_bin:
        _add_bin(spec)
    _add_table(spec, visual)
    return spec.compile()


def _add_table(spec: mujoco.MjSpec, visual: bool) -> None:
    plane = spec.worldbody.add_geom(
        name=TABLE, type=mujoco.mjtGeom.mjGEOM_PLANE, size=(2, 2, 0.1), contype=0, conaffinity=1,
        friction=(0.8, 0.005, 0.0001), solref=CONTACT, rgba=_WOOD,
    )
    if not visual:
        return
    plane.group = robot.COLLISION_GROUP
    box, group = mujoco.mjtGeom.mjGEOM_BOX, robot.VISUAL_GROUP
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


def _add_cube(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=(CUBE_HALF,) * 3, mass=0.1, condim=4,
        friction=(0.8, 0.005, 0.0001), solref=CONTACT, rgba=_COLOURS[name],
    )


def _add_post(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, mocap=True)
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=(0, 0, POST_HEIGHT / 2), contype=0,
        size=(POST_HALF, POST_HALF, POST_HEIGHT / 2), solref=CONTACT, rgba=_COLOURS[name],
    )


def _add_bin(spec: mujoco.MjSpec) -> None:
    """Four walls; the table is its floor."""
    body = spec.worldbody.add_body(name=BIN, mocap=True)
    centre, half = BIN_INNER_HALF + BIN_WALL / 2, BIN_WALL / 2
    length = BIN_INNER_HALF + BIN_WALL
    for i, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        body.add_geom(
            name=f"{BIN}_wall{i}", type=mujoco.mjtGeom.mjGEOM_BOX, contype=0, rgba=_BIN,
            solref=CONTACT,
            pos=(x * centre, y * centre, BIN_HEIGHT / 2),
            size=(half if x else length, half if y else BIN_INNER_HALF, BIN_HEIGHT / 2),
        )
