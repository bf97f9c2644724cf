"""Every task as a Gymnasium environment."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.sim.gym import environment_id
from bridgeact_jax.sim.tasks import TASKS


def make(task, **options):
    name = f"bridgeact_jax.sim.gym:{environment_id(task)}"
    return gymnasium.make(name, disable_env_checker=True, **options).unwrapped


def graphics():
    env = Environment("reach")
    env.reset(0, 0)
    try:
        env.render(32, 32)
    except UserError:
        return False
    return True


def test_names():
    assert environment_id("pick_and_place") == "BridgeAct/PickAndPlace-v0"
    assert len({environment_id(task) for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_checks(task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Actions are metres and quaternions, as everywhere.
        warnings.filterwarnings("ignore", message=".*a symmetric and normalized space")
        check_env(make(task), skip_render_check=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*a symmetric and normalized space")
@pytest.mark.skipif(not graphics(), reason="no graphics library")
def test_checks_of_pictures():
    check_env(make("lift", observations="rgbd", render_mode="rgb_array"))


@pytest.mark.parametrize("observations", ["state", "cloud"])
def test_episodes_are_those_of_the_environment(observations):
    env, same = make("lift", observations=observations, stream="evaluation"), Environment("lift")
    for options, episode in ((None, 0), (None, 1), ({"episode": 5}, 5), (None, 6)):
        seen, info = env.reset(seed=3 if episode == 0 else None, options=options)
        measured = same.reset(3, episode)
        np.testing.assert_allclose(seen["position"], measured.position, atol=1e-6)
        assert info["instruction"] == same.instruction
    assert ("cloud" in seen) == (observations == "cloud")


def test_reward_and_ends():
    env, expert = make("lift", observations="state"), Environment("lift")
    env.reset(seed=0)
    expert.reset(0, 0, stream="gymnasium")
    rewards = []
    actions = np.column_stack(time_guidance(guidance_of(expert.waypoints())))
    for action in [*actions, *[actions[-1]] * 50]:
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            break
    assert terminated and not truncated and info["success"] and info["failure_kind"] == ""
    assert rewards[-1] == sum(rewards) == 1

    seen, _ = env.reset()
    hold = np.concatenate([seen["position"], seen["rotation"], [1.0]])
    terminated = truncated = False
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(hold)
        assert reward == 0
    assert truncated and not terminated and info["failure_kind"] == "did_not_reach"

    env.reset()
    seen, _, terminated, truncated, info = env.step(np.full(8, np.nan))
    assert terminated and info["failure_kind"] == "not_finite" and seen in env.observation_space


@pytest.mark.skipif(not graphics(), reason="no graphics library")
def test_depth_pictures_unproject_to_the_table():
    env = make("reach", observations="rgbd")
    seen, _ = env.reset(seed=1)
    rows, columns = np.mgrid[:240, :240] + 0.5
    for rgb, depth, intrinsics, pose in zip(
        *(seen[key] for key in ("rgb", "depth", "intrinsics", "T_base_camera")), strict=True
    ):
        assert rgb.std() > 10
        rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(intrinsics).T
        points = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
        inside = (np.abs(points[..., 0] - 0.5) < 0.2) & (np.abs(points[..., 1]) < 0.3)
        height = points[inside & (depth > 0), 2]
        assert np.mean(np.abs(height) < 1e-4) > 0.7 and height.min() > -1e-4
        assert height.max() > 0.08  # a post


@pytest.mark.filterwarnings("ignore:.*render_mode")
@pytest.mark.parametrize(
    "options", [{"observations": "clouds"}, {"render_mode": "depth"}, {"arm": "pandas"}]
)
def test_bad_options(options):
    with pytest.raises((UsageError, gymnasium.error.Error)):
        make("reach", **options)
