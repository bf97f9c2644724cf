"""Changing a compiled model must give what compiling the changed model gives."""

import copy

import mujoco
import numpy as np
import pytest

from bridgeact_jax.sim import scene
from bridgeact_jax.sim.arms import find_arm
from bridgeact_jax.sim.objects import Bay, Bin, Box, Post
from bridgeact_jax.sim.tasks import TASKS
from bridgeact_jax.sim.tasks.base import Placed
from bridgeact_jax.sim.world import DENSITY, World

KINDS = {
    "box": Box(), "flat": Box((0.026, 0.02, 0.012)), "post": Post(), "bay": Bay(), "bin": Bin()
}
OF_GEOMS = ("geom_size", "geom_pos", "geom_rbound", "geom_aabb")
OF_FREE_BODIES = (
    "bvh_aabb", "body_mass", "body_inertia", "body_invweight0", "body_subtreemass",
    "dof_invweight0", "dof_M0",
)


def built(kind):
    spec = mujoco.MjSpec()
    find_arm("panda").add(spec, False, True)
    kind.build(spec, "thing")
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1, 1, 0.1))
    return spec


def seen(model, placed):
    """Distances along rays towards the thing, from all around."""
    data = mujoco.MjData(model)
    if model.body("thing").mocapid[0] >= 0:
        data.mocap_pos[0], data.mocap_quat[0] = (*placed.xy, 0), (np.cos(0.15), 0, 0, np.sin(0.15))
    else:
        data.joint("thing").qpos[:] = (*placed.xy, 0.05, np.cos(0.15), 0, 0, np.sin(0.15))
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    distances = []
    for origin in ([0.5, 0.8, 0.5], [1.2, 0.1, 0.4], [0.5, 0.0, 1.0]):
        rays = np.array([*placed.xy, 0.04]) + rng.normal(0, 0.05, (500, 3)) - origin
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        hit, distance = np.empty(500, np.int32), np.empty(500)
        mujoco.mj_multiRay(
            model, data, np.array(origin), rays.reshape(-1), None, 1, -1, hit, distance, None, 500,
            3.0,
        )
        distances.append(distance)
    return np.concatenate(distances)


@pytest.mark.parametrize("name", KINDS)
def test_resizing_is_like_compiling_anew(name):
    kind = KINDS[name]
    placed = Placed(np.array([0.5, 0.1]), 0.3, kind.draw_size(np.random.default_rng(1)), "red")
    model = built(kind).compile()
    data = mujoco.MjData(model)
    kind.place(World(model, data), "thing", placed)
    mujoco.mj_setConst(model, data)

    spec = built(kind)
    for geom in spec.geoms:
        if geom.name.startswith("thing"):
            geom.size, geom.pos = model.geom(geom.name).size, model.geom(geom.name).pos
            geom.mass, geom.density = np.nan, DENSITY
    anew = spec.compile()
    np.testing.assert_allclose(seen(model, placed), seen(anew, placed), atol=1e-9)
    for field in OF_GEOMS + (OF_FREE_BODIES if isinstance(kind, Box) else ()):
        np.testing.assert_allclose(
            getattr(model, field), getattr(anew, field), rtol=1e-6, atol=1e-7, err_msg=field
        )


def test_reading():
    model = copy.copy(scene.load("pick_and_place"))
    data = mujoco.MjData(model)
    world = World(model, data)
    world.resize("cube", np.array([0.02, 0.02, 0.03]))
    world.put("cube", np.array([0.5, 0.1, 0.2]), 0.4 + np.pi / 2)
    world.put("twin", np.array([0.5, 0.1, 0.2 + 0.0224 + 0.03]), 0.0)
    world.put("bin", np.array([0.4, -0.1, 0.0]), 0.2)
    mujoco.mj_forward(model, data)
    assert world.is_free("cube") and not world.is_free("bin")
    assert world.yaw("cube") == pytest.approx(0.4)
    assert world.heading("cube") == pytest.approx(0.4 + np.pi / 2)
    assert (world.bottom("cube"), world.top("cube")) == pytest.approx((0.17, 0.23))
    assert world.corners("bin").shape == (32, 3)
    assert world.top("bin") == pytest.approx(TASKS["pick_and_place"].things["bin"].height)
    assert world.touching("cube", "twin") and world.touching("twin", "cube")
    assert not world.touching("cube", "bin") and not world.touched("cube")
    start = model.joint("cube").dofadr[0]
    data.qvel[start : start + 3] = (0.1, -0.3, 0.2)
    mujoco.mj_forward(model, data)
    assert world.speed("cube") == pytest.approx(0.3)
