"""Every task, through the same checks."""

import numpy as np
import pytest

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.sim import scene
from bridgeact_jax.sim import tasks as task_table
from bridgeact_jax.sim.environment import Environment, episode_rng
from bridgeact_jax.sim.follower import guidance_of, time_guidance

GRASPING = [name for name, task in task_table.TASKS.items() if not task.posts]
SEED = 11
MIN_OBJECT_POINTS = 100
SURFACE = 0.002  # metres: float16 rounds to 0.25 mm at half a metre

every_task = pytest.mark.parametrize("task", task_table.TASKS)
every_grasp = pytest.mark.parametrize("task", GRASPING)


def follow(env, plan, *, steps=None, speed=0.2):
    targets = list(zip(*time_guidance(guidance_of(plan), speed=speed), strict=True))
    for i in range(steps or 10_000):
        if env.done:
            break
        env.step(*targets[min(i, len(targets) - 1)])


def moved(plan, offset):
    position = plan.position.copy()
    position[1:] += offset
    return plan._replace(position=position)


def box_distance(points, env, name):
    """Distance of points to the surface of a box geom, from its pose and size alone."""
    geom = env.data.geom(name)
    local = np.abs((points - geom.xpos) @ geom.xmat.reshape(3, 3)) - env.model.geom(name).size
    return np.abs(
        np.linalg.norm(np.maximum(local, 0), axis=1) + np.minimum(local.max(axis=1), 0)
    )


@every_task
def test_episode_is_determined_by_seed_and_number(task):
    one, other = Environment(task), Environment(task)
    first = one.reset(SEED, 3)
    other.reset(SEED, 4)
    assert not np.allclose(other.layout.target, one.layout.target)
    again = other.reset(SEED, 3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    target = first.position + [0.01, 0, -0.01]
    for env in (one, other):
        env.step(target, first.rotation, 1.0)
    np.testing.assert_array_equal(one.data.qpos, other.data.qpos)
    np.testing.assert_array_equal(one.cloud(), other.cloud())
    other.reset(SEED, 3, stream="demonstrations")
    assert not np.allclose(other.layout.target, one.layout.target)


@every_task
def test_start(task):
    env = Environment(task)
    observation = env.reset(SEED, 0)
    assert observation.time == 0 and observation.gripper_width == pytest.approx(1.0)
    assert observation.position.shape == (3,) and observation.rotation.shape == (4,)
    assert np.linalg.norm(observation.rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(observation.position, env.layout.start, atol=1e-3)
    plan = env.waypoints()
    assert len(plan.position) == len(plan.rotation) == len(plan.gripper) == plan.count
    np.testing.assert_allclose(plan.position[0], observation.position, atol=1e-6)
    assert not (env.success or env.done or env.wrong_object) and env.valid
    assert env.failure_kind == "timeout" and env.instruction


@every_task
def test_expert_succeeds(task):
    env = Environment(task)
    for episode in range(3):
        env.reset(SEED, episode)
        follow(env, env.waypoints())
        assert env.success and env.failure_kind is None, (episode, env.failure_kind)


@every_task
def test_cloud_shows_objects_and_table_but_no_robot(task):
    env = Environment(task)
    env.reset(SEED, 1)
    plan = env.waypoints()
    names = [scene.TARGET, scene.DISTRACTOR]
    if env.task.with_bin:
        names += [f"{scene.BIN}_wall{i}" for i in range(4)]
    for steps in (1, 14, 5):  # ends with the hand right above the target
        follow(env, plan, steps=steps)
        cloud = env.cloud()
        assert cloud.shape == (2048, 3) and cloud.dtype == np.float16
        points = cloud.astype(float)
        distances = np.stack([box_distance(points, env, name) for name in names])
        on_object = distances.min(axis=0) < SURFACE
        on_table = np.abs(points[:, 2]) < 1e-3
        assert np.all(on_object | on_table)
        assert np.mean(on_table & ~on_object) <= 0.25
        assert np.sum(distances[0] < SURFACE) >= MIN_OBJECT_POINTS


@every_grasp
def test_held_object_stays_in_the_cloud(task):
    env = Environment(task)
    env.reset(SEED, 2)
    follow(env, env.waypoints()._replace(count=np.int32(4)), steps=45)
    assert env.data.body(scene.TARGET).xpos[2] > 0.1
    assert np.sum(box_distance(env.cloud().astype(float), env, scene.TARGET) < SURFACE) >= 60


@every_task
def test_layouts(task):
    rng = np.random.default_rng(0)
    for _ in range(200):
        layout = task_table.draw_layout(task_table.TASKS[task], rng)
        assert 0.10 <= np.linalg.norm(layout.target - layout.distractor) <= 0.15
        for place in (layout.target, layout.distractor):
            assert np.all(place >= task_table.WORKSPACE_LOW)
            assert np.all(place <= task_table.WORKSPACE_HIGH)
        assert abs(layout.target_yaw) <= np.radians(40)


@every_task
def test_the_distractor_is_the_wrong_object(task):
    env = Environment(task)
    env.reset(SEED, 0)
    offset = np.array([*(env.layout.distractor - env.layout.target), 0.0])
    plan = moved(env.waypoints(), offset)
    turned = plan.rotation.copy()
    turned[1:] = task_table.tool_down(env.layout.distractor_yaw)
    follow(env, plan._replace(rotation=turned))
    assert not env.success and env.failure_kind == "wrong_object"


@every_grasp
@pytest.mark.parametrize("sideways, up", [(0.03, 0.0), (-0.025, 0.0), (0.0, 0.03)])
def test_a_misplaced_hand_misses(task, sideways, up):
    env = Environment(task)
    env.reset(SEED, 0)
    yaw = env.layout.target_yaw
    offset = [-sideways * np.sin(yaw), sideways * np.cos(yaw), up]
    follow(env, moved(env.waypoints(), offset))
    assert env.valid and env.failure_kind == "missed_grasp"


@every_task
def test_pressing_and_wild_commands_stay_valid(task):
    env = Environment(task)
    env.reset(SEED, 0)
    rng = np.random.default_rng(0)
    while not env.done:
        if env.steps % 8 == 0:
            position = np.array([*env.layout.target, -0.3]) + rng.normal(0, 0.04, 3)
            rotation = task_table.tool_down(rng.uniform(-1, 1)) + rng.normal(0, 0.1, 4)
        observation = env.step(position, rotation, float(rng.uniform() > 0.5))
        assert observation.position[2] > 0.003
    assert env.valid


@every_task
def test_a_command_that_is_not_finite_ends_the_episode(task):
    env = Environment(task)
    before = env.reset(SEED, 0)
    after = env.step(np.full(3, np.nan), before.rotation, 1.0)
    np.testing.assert_array_equal(after.position, before.position)
    assert env.done and not env.valid and env.failure_kind == "invalid"


def test_letting_go_in_the_air_is_misplacing():
    env = Environment("pick_and_place")
    env.reset(SEED, 0)
    follow(env, env.waypoints()._replace(count=np.int32(4)), steps=45)
    assert env.failure_kind == "timeout"
    held = env.waypoints()
    for _ in range(10):
        env.step(held.position[0], held.rotation[0], 1.0)
    assert env.failure_kind == "misplaced"


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="'pick_and_place'"):
        Environment("pick_place")


def test_streams_never_coincide():
    draws = [
        episode_rng(stream, task, seed, episode).integers(2**62)
        for stream in ("evaluation", "demonstrations")
        for task in task_table.TASKS
        for seed in range(3)
        for episode in range(30)
    ]
    assert len(set(draws)) == len(draws)


@pytest.mark.filterwarnings("ignore::UserWarning")  # a missing display
def test_render_gives_a_picture_or_says_how():
    env = Environment("lift")
    env.reset(SEED, 0)
    try:
        picture = env.render(80, 60)
    except UserError as error:
        assert "MUJOCO_GL=egl" in str(error)
    else:
        assert picture.shape == (60, 80, 3) and picture.std() > 10
