"""Pictures of an environment. The only place of the simulator that needs a graphics library."""

import copy
import functools
import os
import sys
from collections.abc import Sequence

import mujoco
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.poses import Pose as QuaternionPose
from bridgeact_jax.sim import front_camera, scene
from bridgeact_jax.sim.arms import COLLISION_GROUP
from bridgeact_jax.sim.cameras import FIELD_OF_VIEW, Pose
from bridgeact_jax.sim.world import World, robot_geoms

FINER = 3  # times finer than they become are small pictures rendered
MAX_DEPTH = 10.0  # metres; what is farther has depth 0
_HELP = (
    "rendered pictures need a graphics library: on a server `apt install libegl1 libgl1`, "
    "elsewhere a display or MUJOCO_GL (physics, clouds and figures need none)"
)


class Stage:
    """A double of an environment's world in the detail that pictures need.

    Args:
      key: what `scene.load` needs, as `Environment.scene` has it.
    """

    def __init__(self, key: tuple):
        self.model = copy.copy(scene.load(*key, visual=True))
        self.data = mujoco.MjData(self.model)
        self.option = mujoco.MjvOption()
        self.option.geomgroup[COLLISION_GROUP] = 0
        self.option.sitegroup[:] = 0
        self._pictures: dict[str, np.ndarray] = {}

    def follow(self, world: World) -> list[int]:
        """Take over a world's state, and the sizes, places, colours and pictures of its things.

        Returns:
          ids of the textures that have changed, which a renderer still has to take over.
        """
        shown, data = self.data, world.data
        _dress(self.model, world.model)
        shown.qpos[:], shown.mocap_pos[:], shown.mocap_quat[:] = (
            data.qpos, data.mocap_pos, data.mocap_quat
        )
        mujoco.mj_kinematics(self.model, shown)
        mujoco.mj_camlight(self.model, shown)
        changed = []
        for name, picture in world.pictures.items():
            if self._pictures.get(name) is not picture:
                texture = self.model.texture(name)
                texture.data[:] = picture
                self._pictures[name] = picture
                changed.append(texture.id)
        return changed


def overview() -> mujoco.MjvCamera:
    """The camera of pictures and videos, from which table and arm are seen whole."""
    camera = mujoco.MjvCamera()
    camera.lookat, camera.distance = (0.40, 0.0, 0.19), 1.2
    camera.azimuth, camera.elevation = 145.0, -27.0
    return camera


def picture(key: tuple, world: World, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 of a world's state.

    Args:
      key: of its scene; see `Stage`.
    """
    stage, renderer = _following(world, key, width, height)
    renderer.update_scene(stage.data, overview(), stage.option)
    return renderer.render()


def front(key: tuple, world: World) -> np.ndarray:
    """(*front_camera.SIZE, 3) uint8: what the camera in front of the table sees."""
    height, width = front_camera.SIZE
    field_of_view = np.degrees(front_camera.FIELD_OF_VIEW)
    stage, renderer = _following(world, key, FINER * width, FINER * height, field_of_view)
    pose = front_camera.POSITION, front_camera.ROTATION
    renderer.update_scene(stage.data, _free_camera(pose), stage.option)
    fine = renderer.render().reshape(height, FINER, width, FINER, 3)
    return np.round(fine.mean(axis=(1, 3))).astype(np.uint8)


def rgbd(
    key: tuple, world: World, poses: Sequence[Pose], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """What depth cameras see: (n, size, size, 3) uint8 and depth (n, size, size) float32.

    Depth is in metres along the optical axis, 0 where there is nothing within `MAX_DEPTH`. The
    field of view is that of `cameras`, so that `intrinsics` unprojects it.
    """
    stage, renderer = _following(world, key, size, size, np.degrees(FIELD_OF_VIEW))
    colours, depths = [], []
    for pose in poses:
        renderer.update_scene(stage.data, _free_camera(pose), stage.option)
        colours.append(renderer.render())
        renderer.enable_depth_rendering()
        depth = renderer.render()
        renderer.disable_depth_rendering()
        depths.append(np.where(depth < MAX_DEPTH, depth, 0))
    return np.stack(colours), np.stack(depths).astype(np.float32)


def robot_pixels(key: tuple, world: World, pose: Pose, size: int) -> np.ndarray:
    """(size, size) bool: where a camera at `pose` sees the robot, in the pictures of `rgbd`."""
    stage, renderer = _following(world, key, size, size, np.degrees(FIELD_OF_VIEW))
    renderer.update_scene(stage.data, _free_camera(pose), stage.option)
    renderer.enable_segmentation_rendering()
    number, kind = np.moveaxis(renderer.render(), -1, 0)
    renderer.disable_segmentation_rendering()
    return (kind == mujoco.mjtObj.mjOBJ_GEOM) & robot_geoms(stage.model)[number]


def intrinsics(size: int) -> np.ndarray:
    """(3, 3) of the depth cameras' pictures of `size` pixels a side: pixels from metres at z = 1.

    The centre of the pixel in column i and row j is at (i + 0.5, j + 0.5).
    """
    focal = size / 2 / np.tan(FIELD_OF_VIEW / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def camera(pose: Pose, size: int) -> Camera:
    """A depth camera's pictures of `size` pixels a side as `geometry.cameras` has it."""
    (position, rotation), matrix = pose, intrinsics(size)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).reshape(-1))
    focal, centre = matrix[0, 0], matrix[0, 2] - 0.5
    return Camera(QuaternionPose(np.array(position), quaternion), focal, focal, centre, centre)


def _following(world: World, key: tuple, width: int, height: int, *field_of_view: float):
    """`_renderer` of a scene with the world in it."""
    stage, renderer = _renderer(key, width, height, *field_of_view)
    for texture in stage.follow(world):
        renderer._gl_context.make_current()
        mujoco.mjr_uploadTexture(stage.model, renderer._mjr_context, texture)
    return stage, renderer


@functools.lru_cache(maxsize=4)
def _renderer(key: tuple, width: int, height: int, field_of_view: float | None = None):
    """The stage of a scene and a renderer of it; degrees, None for MuJoCo's own."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        if "MUJOCO_GL" not in os.environ:
            raise UserError(_HELP)
        # MuJoCo has read the variable when it was imported; GLFW would end the process here.
        if mujoco.GLContext.__module__.startswith("mujoco.glfw"):
            raise UserError("mujoco was imported without graphics: import bridgeact_jax.sim first")
    stage = Stage(key)
    if field_of_view is not None:
        stage.model.vis.global_.fovy = field_of_view
    try:
        return stage, mujoco.Renderer(stage.model, height=height, width=width)
    except Exception as error:  # what is raised depends on the missing library
        raise UserError(f"{_HELP}: {error}") from error


def _free_camera(pose: Pose) -> mujoco.MjvCamera:
    """MuJoCo's camera at a pose whose x axis is level."""
    position, rotation = pose
    forward, camera = rotation[:, 2], mujoco.MjvCamera()
    camera.distance = 1.0
    camera.lookat = position + forward
    camera.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
    camera.elevation = np.degrees(np.arcsin(forward[2]))
    return camera


def _dress(shown: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """Give the things of the model for pictures the sizes, places and colours of another's."""
    for number in range(model.ngeom):
        source = model.geom(number)
        geom = shown.geom(source.name)
        if shown.geom_group[geom.id] == COLLISION_GROUP:
            continue
        geom.type[:], geom.size[:] = source.type, source.size
        geom.pos[:], geom.rgba[:] = source.pos, source.rgba
        shown.geom_rbound[geom.id] = model.geom_rbound[number]
    shown.body_pos[:], shown.body_quat[:] = model.body_pos, model.body_quat
