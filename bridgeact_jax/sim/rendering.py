"""Pictures of an environment. The only place of the simulator that needs a graphics library."""

import functools
import os
import sys

import mujoco
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.sim import robot, scene
from bridgeact_jax.sim.tasks import Task

_HELP = (
    "rendered pictures need a graphics library: on a server `apt install libegl1 libgl1`, "
    "elsewhere a display or MUJOCO_GL (physics, clouds and figures need none)"
)


@functools.lru_cache(maxsize=4)
def _renderer(posts: bool, with_bin: bool, width: int, height: int):
    if sys.platform == "linux" and not {"MUJOCO_GL", "DISPLAY"} & os.environ.keys():
        raise UserError(_HELP)
    model = scene.load(posts, with_bin, visual=True)
    try:
        renderer = mujoco.Renderer(model, height=height, width=width)
    except Exception as error:  # what is raised depends on the missing library
        raise UserError(f"{_HELP}: {error}") from error
    camera = mujoco.MjvCamera()
    camera.lookat, camera.distance = (0.40, 0.0, 0.19), 1.2
    camera.azimuth, camera.elevation = 145.0, -27.0
    option = mujoco.MjvOption()
    option.geomgroup[robot.COLLISION_GROUP] = 0
    option.sitegroup[:] = 0
    return renderer, mujoco.MjData(model), camera, option


def picture(task: Task, data: mujoco.MjData, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 of the state in `data`."""
    renderer, shown, camera, option = _renderer(task.posts, task.with_bin, width, height)
    shown.qpos[:], shown.mocap_pos[:], shown.mocap_quat[:] = (
        data.qpos, data.mocap_pos, data.mocap_quat
    )
    mujoco.mj_kinematics(renderer.model, shown)
    mujoco.mj_camlight(renderer.model, shown)
    renderer.update_scene(shown, camera, option)
    return renderer.render()
