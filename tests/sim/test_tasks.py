"""Every task, through the same checks."""

import itertools

import numpy as np
import pytest

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.sim import tasks
from bridgeact_jax.sim.book import FAILURES
from bridgeact_jax.sim.environment import SAFE_HIGH, SAFE_LOW, Environment, episode_rng
from bridgeact_jax.sim.follower import PADDED_WAYPOINTS
from bridgeact_jax.sim.objects import BOX, VARIATION
from bridgeact_jax.sim.tasks.base import tool_down
from tests.sim.episodes import SEED, environment, follow, started

MIN_OBJECT_POINTS = 100
SURFACE = 0.002  # metres: float16 rounds to 0.25 mm at half a metre

every_task = pytest.mark.parametrize("task", tasks.TASKS)
single_picks = pytest.mark.parametrize("task", ["lift", "pick_and_place"])


def moved(plan, offset):
    position = plan.position.copy()
    position[1:] += offset
    return plan._replace(position=position)


def surface_distance(points, env, geom):
    """Distance of points to the surface of a box or cylinder, from its pose and size alone."""
    model, data = env.model, env.data
    local = (points - data.geom_xpos[geom]) @ data.geom_xmat[geom].reshape(3, 3)
    size = model.geom_size[geom]
    if model.geom_type[geom] == BOX:
        beyond = np.abs(local) - size
    else:
        beyond = np.stack([np.hypot(*local[:, :2].T) - size[0], np.abs(local[:, 2]) - size[1]], 1)
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    return np.abs(outside + np.minimum(beyond.max(axis=1), 0))


def everything(env):
    """All that an episode's start decides."""
    model, data = env.model, env.data
    return [
        data.qpos, data.mocap_pos, data.mocap_quat, model.geom_size, model.geom_pos, model.bvh_aabb,
        model.geom_rgba, model.body_mass, model.body_inertia, model.body_pos, *env.cameras[0],
    ]


@every_task
def test_episode_is_determined_by_seed_and_number(task):
    one, other = Environment(task), Environment(task)
    first = one.reset(SEED, 3)
    other.reset(SEED, 4)
    assert not np.array_equal(everything(one)[0], everything(other)[0])
    again = other.reset(SEED, 3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    target = first.position + [0.01, 0, -0.01]
    for env in (one, other):
        env.step(target, first.rotation, 1.0)
    for a, b in zip(everything(one), everything(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.cloud(), other.cloud())
    other.reset(SEED, 3, stream="demonstrations")
    assert not np.allclose(other.layout.start, one.layout.start)


@every_task
def test_start(task):
    env = environment(task)
    observation = env.reset(SEED, 0)
    assert observation.time == 0 and observation.gripper_width == pytest.approx(1.0)
    assert observation.position.shape == (3,) and observation.rotation.shape == (4,)
    assert np.linalg.norm(observation.rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(observation.position, env.layout.start, atol=1e-3)
    plan = env.waypoints()
    assert len(plan.position) == len(plan.rotation) == len(plan.gripper) == plan.count
    assert plan.count <= PADDED_WAYPOINTS
    np.testing.assert_allclose(plan.position[0], observation.position, atol=1e-6)
    assert not (env.success or env.done or env.wrong_object) and env.valid
    assert tuple(env.subgoals) == env.task.subgoals and not any(env.subgoals.values())
    assert env.failure_kind in FAILURES and env.instruction
    assert env.task.horizon in ("short", "middle", "long")


@every_task
def test_what_stands_still_stays_unsolved(task):
    env = started(task, 1)
    before = env.reset(SEED, 1)
    for _ in range(5):
        env.step(before.position, before.rotation, 1.0)
    assert not (env.done or any(env.subgoals.values()))
    for body in env.task.targets:
        assert env.world.speed(body) < 0.01


@every_task
def test_expert_succeeds(task):
    env = environment(task)
    for episode in range(2):
        env.reset(SEED, episode)
        plan = env.waypoints()
        follow(env, plan)
        assert env.success and env.failure_kind is None, (episode, env.failure_kind, env.subgoals)
        assert all(env.subgoals.values())
        assert env.time < env.task.time_limit / 1.5


@every_task
def test_cloud_shows_objects_and_table_but_no_robot(task):
    env = started(task, 1)
    plan = env.waypoints()
    objects = [i for i in range(env.model.ngeom) if not env.world.is_robot[i]]
    objects.remove(env.model.geom("table").id)
    for steps in (1, 15):  # ends with the hand near the first target
        follow(env, plan, steps=steps)
        cloud = env.cloud()
        assert cloud.shape == (2048, 3) and cloud.dtype == np.float16
        points = cloud.astype(float)
        on_object = np.min([surface_distance(points, env, i) for i in objects], axis=0) < SURFACE
        on_table = np.abs(points[:, 2]) < 1e-3
        assert np.all(on_object | on_table)
        assert np.mean(on_table & ~on_object) <= 0.25
        assert np.sum(on_object) >= MIN_OBJECT_POINTS


@every_task
def test_layouts(task):
    the_task, rng = tasks.TASKS[task], np.random.default_rng(0)
    layouts = [the_task.draw(rng) for _ in range(20)]
    for layout in layouts:
        for name, placed in layout.things.items():
            thing = the_task.things[name]
            assert np.all(placed.xy >= thing.low) and np.all(placed.xy <= thing.high)
            assert np.all(placed.size > 0)
        for a, b in itertools.combinations(layout.things, 2):
            if the_task.inside.get(b) != a:
                room = sum(the_task.things[n].radius(layout[n].size) for n in (a, b))
                assert np.linalg.norm(layout[a].xy - layout[b].xy) >= room
        for name, beside in the_task.twins.items():
            assert layout[name].colour != layout[beside].colour
            assert layout[name].colour not in the_task.instruction(layout).split()
    for name in the_task.things:
        sizes = np.array([layout[name].size for layout in layouts])
        assert np.any(sizes.std(axis=0) > 0)
        assert np.all(sizes.max(axis=0) / sizes.min(axis=0) <= (1 + VARIATION) / (1 - VARIATION))


@every_task
def test_pressing_and_wild_commands_stay_valid(task):
    env = started(task)
    rng = np.random.default_rng(0)
    aim = env.world.position(env.task.targets[0])
    while not env.done and env.time < 8.0:
        if env.steps % 8 == 0:
            position = np.array([*aim[:2], -0.3]) + rng.normal(0, 0.04, 3)
            rotation = tool_down(rng.uniform(-1, 1)) + rng.normal(0, 0.1, 4)
        observation = env.step(position, rotation, float(rng.uniform() > 0.5))
        assert observation.position[2] > 0.003
    assert env.valid


@every_task
def test_a_command_that_is_not_finite_ends_the_episode(task):
    env = environment(task)
    before = env.reset(SEED, 0)
    after = env.step(np.full(3, np.nan), before.rotation, 1.0)
    np.testing.assert_array_equal(after.position, before.position)
    assert env.done and env.valid and not env.success and env.failure_kind == "not_finite"


def test_leaving_the_safe_region_is_unsafe():
    env = started("lift")
    rotation = tool_down(0.0)
    while not env.done:
        observation = env.step(np.array([0.4, 0.9, 0.3]), rotation, 1.0)
    assert env.failure_kind == "unsafe" and env.valid
    outside = (observation.position < SAFE_LOW) | (observation.position > SAFE_HIGH)
    assert outside.any()


def test_diverged_physics_is_invalid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log
    env = started("lift")
    env.data.qvel[0] = 1e12
    env.step(env.world.tool, tool_down(0.0), 1.0)
    assert env.done and not env.valid and env.failure_kind == "diverged"


@single_picks
def test_held_object_stays_in_the_cloud(task):
    env = started(task, 2)
    follow(env, env.waypoints()._replace(count=np.int32(4)), steps=45)
    assert env.world.bottom("cube") > 0.1
    geom = env.model.geom("cube").id
    assert np.sum(surface_distance(env.cloud().astype(float), env, geom) < SURFACE) >= 60


@pytest.mark.parametrize("task, target", [("reach", "post"), ("lift", "cube")])
def test_the_distractor_is_the_wrong_object(task, target):
    env = started(task)
    offset = np.array([*(env.layout["twin"].xy - env.layout[target].xy), 0.0])
    plan = moved(env.waypoints(), offset)
    turned = plan.rotation.copy()
    turned[1:] = tool_down(env.layout["twin"].yaw)
    follow(env, plan._replace(rotation=turned))
    assert not env.success and env.failure_kind == "wrong_object"


@single_picks
@pytest.mark.parametrize("sideways, up", [(0.03, 0.0), (-0.03, 0.0), (0.0, 0.035)])
def test_a_misplaced_hand_misses(task, sideways, up):
    env = started(task)
    yaw = env.world.yaw("cube")
    offset = [-sideways * np.sin(yaw), sideways * np.cos(yaw), up]
    follow(env, moved(env.waypoints(), offset))
    assert env.valid and env.failure_kind == "missed_grasp"


@single_picks
def test_a_hand_far_away_did_not_reach(task):
    env = started(task)
    follow(env, moved(env.waypoints(), [0, 0, 0.15]))
    assert env.failure_kind == "did_not_reach"


def test_letting_go_in_the_air_is_misplacing():
    env = started("pick_and_place")
    follow(env, env.waypoints()._replace(count=np.int32(4)), steps=45)
    assert env.failure_kind == "timeout" and env.subgoals == {"lifted": True, "in_bin": False}
    held = env.waypoints()
    for _ in range(10):
        env.step(held.position[0], held.rotation[0], 1.0)
    assert env.failure_kind == "misplaced"


def test_losing_what_is_held_is_dropping():
    env = started("pick_and_place")
    follow(env, env.waypoints()._replace(count=np.int32(4)), steps=45)
    held = env.waypoints()
    away = env.model.joint("cube").qposadr[0]
    env.data.qpos[away : away + 3] = (0.4, 0.3, 0.05)
    for _ in range(5):
        env.step(held.position[0], held.rotation[0], 0.0)
    assert env.failure_kind == "dropped"


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="'pick_and_place'"):
        Environment("pick_place")


def test_streams_never_coincide():
    draws = [
        episode_rng(stream, task, seed, episode).integers(2**62)
        for stream in ("evaluation", "demonstrations")
        for task in tasks.TASKS
        for seed in range(3)
        for episode in range(30)
    ]
    assert len(set(draws)) == len(draws)


@pytest.mark.filterwarnings("ignore::UserWarning")  # a missing display
def test_render_gives_a_picture_or_says_how():
    env = started("lift")
    try:
        picture = env.render(80, 60)
    except UserError as error:
        assert "MUJOCO_GL" in str(error)
    else:
        assert picture.shape == (60, 80, 3) and picture.std() > 10
