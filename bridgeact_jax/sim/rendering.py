"""Pictures of an environment. The only place of the simulator that needs a graphics library."""

import copy
import functools
import os
import sys

import mujoco
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.sim import scene
from bridgeact_jax.sim.arms import COLLISION_GROUP
from bridgeact_jax.sim.world import World

_HELP = (
    "rendered pictures need a graphics library: on a server `apt install libegl1 libgl1`, "
    "elsewhere a display or MUJOCO_GL (physics, clouds and figures need none)"
)


@functools.lru_cache(maxsize=4)
def _renderer(task: str, arm: str, width: int, height: int):
    if sys.platform == "linux" and not {"MUJOCO_GL", "DISPLAY"} & os.environ.keys():
        raise UserError(_HELP)
    model = copy.copy(scene.load(task, arm, visual=True))
    try:
        renderer = mujoco.Renderer(model, height=height, width=width)
    except Exception as error:  # what is raised depends on the missing library
        raise UserError(f"{_HELP}: {error}") from error
    camera = mujoco.MjvCamera()
    camera.lookat, camera.distance = (0.40, 0.0, 0.19), 1.2
    camera.azimuth, camera.elevation = 145.0, -27.0
    option = mujoco.MjvOption()
    option.geomgroup[COLLISION_GROUP] = 0
    option.sitegroup[:] = 0
    return renderer, mujoco.MjData(model), camera, option


def picture(task: str, arm: str, world: World, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 of the state of a task's world, in its sizes and colours."""
    renderer, shown, camera, option = _renderer(task, arm, width, height)
    model, data = renderer.model, world.data
    _dress(model, world.model)
    shown.qpos[:], shown.mocap_pos[:], shown.mocap_quat[:] = (
        data.qpos, data.mocap_pos, data.mocap_quat
    )
    mujoco.mj_kinematics(model, shown)
    mujoco.mj_camlight(model, shown)
    renderer.update_scene(shown, camera, option)
    return renderer.render()


def _dress(shown: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """Give the things of the model for pictures the sizes, places and colours of another's."""
    for number in range(model.ngeom):
        source = model.geom(number)
        geom = shown.geom(source.name)
        if shown.geom_group[geom.id] == COLLISION_GROUP:
            continue
        geom.size[:], geom.pos[:], geom.rgba[:] = source.size, source.pos, source.rgba
        shown.geom_rbound[geom.id] = model.geom_rbound[number]
    for number in range(1, model.nbody):
        body = shown.body(model.body(number).name)
        body.pos[:], body.quat[:] = model.body_pos[number], model.body_quat[number]
