"""Inverse kinematics, tracking and the time-following expert."""

import mujoco
import numpy as np
import pytest

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim import kinematics, scene
from bridgeact_jax.sim.arms import ARMS, TCP_SITE
from bridgeact_jax.sim.environment import MAX_LEAD, Environment
from bridgeact_jax.sim.follower import MAX_ACCELERATION, guidance_of, time_guidance
from bridgeact_jax.sim.tasks.base import tool_down


def test_inverse_kinematics_agrees_with_the_simulated_arm():
    model = scene.load("reach")
    data = mujoco.MjData(model)
    home = np.array(ARMS["panda"].home)
    rng = np.random.default_rng(0)
    for _ in range(20):
        position = rng.uniform([0.3, -0.3, 0.01], [0.65, 0.3, 0.4])
        rotation = tool_down(rng.uniform(-0.8, 0.8))
        joints = kinematics.shared().solve(position, rotation, home, iterations=60)
        data.qpos[:7] = joints
        mujoco.mj_kinematics(model, data)
        site = data.site(TCP_SITE)
        np.testing.assert_allclose(site.xpos, position, atol=5e-4)
        expected = np.empty(9)
        mujoco.mju_quat2Mat(expected, rotation)
        np.testing.assert_allclose(site.xmat, expected, atol=5e-3)
        limits = model.jnt_range[:7]
        assert np.all(joints >= limits[:, 0]) and np.all(joints <= limits[:, 1])


@pytest.mark.parametrize("direction", np.eye(3))
def test_tracking(direction):
    env = Environment("reach")
    env.reset(0, 0)
    start, rotation = np.array([0.42, -0.12, 0.25]), tool_down(0.0)
    for _ in range(40):
        observation = env.step(start, rotation, 1.0)
    assert np.linalg.norm(observation.position - start) < 1e-3  # steady state
    for i in range(1, 11):
        target = start + 0.02 * i * direction  # 0.2 m/s
        behind = target - env.step(target, rotation, 1.0).position
    assert behind @ direction / 0.2 < 0.06  # seconds of lag
    assert np.linalg.norm(behind - (behind @ direction) * direction) < 1e-3


def test_a_far_command_is_approached_in_bounded_steps():
    env = Environment("reach")
    before = env.reset(0, 0)
    for _ in range(5):
        after = env.step(np.array([0.5, 0.3, 0.3]), before.rotation, 1.0)
        assert np.linalg.norm(after.position - before.position) < MAX_LEAD + 0.01
        before = after


def plan():
    position = np.array([[0.4, 0, 0.3], [0.5, 0.1, 0.13], [0.5, 0.1, 0.03], [0.5, 0.1, 0.23]])
    rotation = np.stack([tool_down(yaw) for yaw in (0.0, 0.4, 0.4, 0.4)])
    return Waypoints(
        position.astype(np.float32), rotation.astype(np.float32),
        np.array([1, 1, 0, 0], np.float32), np.int32(4),
    )


@pytest.mark.parametrize("speed", [0.12, 0.2, 0.5])
def test_following_by_time(speed):
    waypoints = plan()
    position, rotation, gripper = time_guidance(guidance_of(waypoints), speed=speed, settle=0.6)
    first = np.linalg.norm(position[0] - waypoints.position[0])
    assert first <= 0.5 * MAX_ACCELERATION * 0.1**2 + 1e-6  # from rest, after 0.1 s
    np.testing.assert_allclose(position[-1], waypoints.position[-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rotation, axis=1), 1, atol=1e-5)
    closed = np.flatnonzero(gripper < 0.5)
    assert np.all(np.diff(closed) == 1) and closed[-1] == len(gripper) - 1
    standing = position[closed[0] - 1 : closed[0] + 6]  # arrived, then 0.6 s
    np.testing.assert_allclose(standing, np.tile(waypoints.position[2], (7, 1)), atol=1e-5)
    velocity = np.diff(position, axis=0) * 10
    assert np.linalg.norm(velocity, axis=1).max() <= speed * 1.001
    around_event = np.diff(velocity, axis=0)[closed[0] - 5 : closed[0] + 10] * 10
    assert np.linalg.norm(around_event, axis=1).max() <= MAX_ACCELERATION * 1.2


def test_a_plan_that_stands_still_has_no_motion():
    waypoints = plan()._replace(count=np.int32(1))
    position, _, _ = time_guidance(guidance_of(waypoints))
    assert len(position) == 1
    np.testing.assert_allclose(position, np.tile(waypoints.position[0], (len(position), 1)))
