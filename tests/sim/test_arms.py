"""Every arm through the same checks; the UR5e against its Denavit-Hartenberg parameters."""

import mujoco
import numpy as np
import pytest

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.sim import kinematics, scene
from bridgeact_jax.sim.arms import ARMS, COLLISION_GROUP, ROOT, TCP_SITE, find_arm
from bridgeact_jax.sim.arms.gripper import TOOL_LENGTH
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.sim.rendering import Stage
from bridgeact_jax.sim.tasks.base import tool_down

every_arm = pytest.mark.parametrize("name", ARMS)


@pytest.fixture(scope="module")
def loaded():
    """(model, data) by arm, in the scene of one task."""
    models = {name: scene.load("reach", name) for name in ARMS}
    return {name: (model, mujoco.MjData(model)) for name, model in models.items()}


def tool(model, data, joints):
    data.qpos[: len(joints)] = joints
    mujoco.mj_kinematics(model, data)
    site = data.site(TCP_SITE)
    return site.xpos.copy(), site.xmat.reshape(3, 3).copy()


def test_forward_kinematics_is_the_product_of_the_published_parameters(loaded):
    d = (0.1625, 0, 0, 0.1333, 0.0997, 0.0996)
    a = (0, -0.425, -0.3922, 0, 0, 0)
    alpha = np.radians([90, 0, 0, 90, -90, 0])
    for joints in np.random.default_rng(0).uniform(-1, 1, (10, 6)):
        product = np.diag([-1.0, -1.0, 1.0, 1.0])  # the base is mounted half a turn about z
        for theta, di, ai, alphai in zip(joints, d, a, alpha, strict=True):
            c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(alphai), np.sin(alphai)
            product = product @ np.array([
                [c, -s * ca, s * sa, ai * c], [s, c * ca, -c * sa, ai * s], [0, sa, ca, di],
                [0, 0, 0, 1],
            ])
        position, matrix = tool(*loaded["ur5e"], joints)
        np.testing.assert_allclose(position, product[:3, 3] + TOOL_LENGTH * product[:3, 2])
        np.testing.assert_allclose(matrix, product[:3, :3], atol=1e-12)


@every_arm
def test_home_points_down_with_the_fingers_opening_along_y(loaded, name):
    arm, (model, data) = find_arm(name), loaded[name]
    position, matrix = tool(model, data, arm.home)
    np.testing.assert_allclose(matrix, np.diag([1, -1, -1]), atol=0.02)
    assert 0.3 < position[0] < 0.65 and abs(position[1]) < 0.1 and position[2] > 0.1
    count = len(arm.joints)
    for opening in (0.0, arm.finger_range):
        data.qpos[count : count + 2] = opening
        mujoco.mj_kinematics(model, data)
        between = data.geom("finger_left_pad").xpos - data.geom("finger_right_pad").xpos
        depth = model.geom("finger_left_pad").size[1]
        np.testing.assert_allclose(
            np.abs(matrix.T @ between), [0, 2 * (opening + depth), 0], atol=1e-9
        )
    assert model.joint("finger_left").range[1] == arm.finger_range


@every_arm
def test_the_fingers_stay_above_the_table_at_the_floor(loaded, name):
    arm, (model, data) = find_arm(name), loaded[name]
    goal = np.array([0.5, 0.0, arm.floor])
    home = np.array(arm.home)
    tool(model, data, kinematics.shared(name).solve(goal, tool_down(0.0), home, 60))
    pad = data.geom("finger_left_pad")
    lowest = pad.xpos[2] - np.abs(pad.xmat.reshape(3, 3)[2]) @ model.geom("finger_left_pad").size
    assert 0 < lowest < 0.005


@every_arm
def test_inverse_kinematics_reaches_the_workspace(loaded, name):
    arm, (model, data) = find_arm(name), loaded[name]
    rng, home = np.random.default_rng(0), np.array(arm.home)
    limits = model.jnt_range[: len(home)]
    for _ in range(30):
        goal = rng.uniform([0.33, -0.3, 0.01], [0.67, 0.3, 0.35])
        rotation = tool_down(rng.uniform(-0.8, 0.8))
        joints = kinematics.shared(name).solve(goal, rotation, home, iterations=60)
        assert np.all(joints >= limits[:, 0]) and np.all(joints <= limits[:, 1])
        position, matrix = tool(model, data, joints)
        np.testing.assert_allclose(position, goal, atol=5e-4)
        expected = np.empty(9)
        mujoco.mju_quat2Mat(expected, rotation)
        np.testing.assert_allclose(matrix.ravel(), expected, atol=5e-3)


@every_arm
def test_tracking(name):
    env = Environment("reach", arm=name)
    start = env.reset(0, 0)
    for i in range(1, 11):
        target = start.position + [0, 0.02 * i, 0]  # 0.2 m/s
        behind = target - env.step(target, start.rotation, 1.0).position
    assert 0 < behind[1] / 0.2 < 0.06  # seconds of lag
    for _ in range(10):
        after = env.step(target, start.rotation, 1.0)
    assert np.linalg.norm(after.position - target) < 1e-3


@every_arm
def test_the_expert_lifts(name):
    env = Environment("lift", arm=name)
    for episode in range(2):
        assert env.reset(11, episode).gripper_width == pytest.approx(1.0)
        targets = list(zip(*time_guidance(guidance_of(env.waypoints())), strict=True))
        for i in range(120):
            measured = env.step(*targets[min(i, len(targets) - 1)])
            if env.done:
                break
        assert env.success
        held = 2 * env.layout["cube"].size[1] / env.arm.max_width
        assert measured.gripper_width == pytest.approx(held, abs=0.06)


@every_arm
def test_everything_of_the_arm_is_the_robot(loaded, name):
    model, _ = loaded[name]
    env = Environment("reach", arm=name)
    roots = model.body_rootid[model.geom_bodyid] == model.body(ROOT).id
    np.testing.assert_array_equal(env.world.is_robot, roots)
    assert np.all(model.geom_group[roots] == COLLISION_GROUP)
    assert not {"table", "post", "twin"} & {
        model.geom(i).name for i in np.flatnonzero(roots)
    }


def test_an_unknown_arm_names_the_nearest():
    with pytest.raises(UsageError, match="'ur5e'"):
        Environment("reach", arm="ur5")


# ---- a checkout of MuJoCo Menagerie --------------------------------------------------------------

PLANTED = """
<mujoco model="planted">
  <compiler angle="radian" autolimits="true"/>
  <option integrator="implicitfast"/>
  <default>
    <default class="arm">
      <geom type="capsule" size="0.04" material="paint"/>
      <joint axis="0 1 0" range="-3 3" damping="100"/>
    </default>
  </default>
  <asset><material name="paint" rgba="0.9 0.5 0.1 1"/></asset>
  <worldbody>
    <light pos="0 0 2"/>
    <body name="table" childclass="arm">
      <geom fromto="0 0 0 0 0 0.1" size="0.07"/>
      <body pos="0 0 0.3"> <joint name="pan" axis="0 0 1"/>
        <geom fromto="0 0 -0.1 0 0 0"/>
        <body> <joint name="shoulder"/>
          <geom fromto="0 0 0 0 0 0.4"/>
          <body pos="0 0 0.4"> <joint/>
            <geom fromto="0 0 0 0.2 0 0"/>
            <body pos="0.2 0 0"> <joint name="roll" axis="1 0 0"/>
              <geom fromto="0 0 0 0.2 0 0"/>
              <body pos="0.2 0 0"> <joint name="pitch"/>
                <geom fromto="0 0 0 0.04 0 0" size="0.035"/>
                <body pos="0.05 0 0"> <joint name="turn" axis="1 0 0"/>
                  <geom fromto="0 0 0 0.01 0 0" size="0.03"/>
                  <site name="attachment_site" pos="0.04 0 0" quat="1 0 1 0"/>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="pan"/><position joint="pitch" kp="10"/></actuator>
  <keyframe><key qpos="0 0 0 0 1.57 0" ctrl="0 0"/></keyframe>
</mujoco>
"""


@pytest.fixture
def menagerie(tmp_path, monkeypatch):
    for name, text in {
        "acme/acme": PLANTED,
        "acme/scene": '<mujoco><include file="acme.xml"/></mujoco>',
        "short/short": PLANTED.replace("0.4", "0.2"),
        "stiff/stiff": PLANTED.replace('<joint name="roll" axis="1 0 0"/>', ""),
        "bare/bare": PLANTED.replace("attachment_site", "elsewhere"),
        "broken/broken": PLANTED.replace("</body>", "", 1),
    }.items():
        path = tmp_path / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))


@pytest.mark.filterwarnings("error")
def test_an_arm_of_a_menagerie_lifts(menagerie):
    env = Environment("lift", arm="menagerie:acme")
    assert len(env.arm.joints) == 6 and env.arm is find_arm("menagerie:acme")
    model, data = env.model, mujoco.MjData(env.model)
    _, matrix = tool(model, data, env.arm.home)
    np.testing.assert_allclose(matrix[2], [0, 0, -1], atol=0.01)
    assert model.nu == 7 and not model.dof_damping[:6].any()
    env.reset(11, 0)
    stage = Stage(env.scene)
    stage.follow(env.world)
    np.testing.assert_array_equal(stage.data.xpos, env.data.xpos)
    targets = list(zip(*time_guidance(guidance_of(env.waypoints())), strict=True))
    for i in range(120):
        env.step(*targets[min(i, len(targets) - 1)])
    assert env.success


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("acne", UsageError, "'acme'"),
        ("acme/acne", UsageError, "'acme'"),
        ("short", UserError, "workspace"),
        ("stiff", UserError, "six to eight hinges"),
        ("bare", UserError, "attachment_site"),
        ("broken", UserError, "broken.xml"),
    ],
)
def test_arms_of_a_menagerie_that_cannot_be_used(menagerie, name, error, message):
    with pytest.raises(error, match=message):
        find_arm(f"menagerie:{name}")


def test_without_a_menagerie(monkeypatch):
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    with pytest.raises(UserError, match="MENAGERIE_ROOT"):
        find_arm("menagerie:acme")
