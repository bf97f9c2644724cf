"""Every axis of disturbance against what it promises."""

import dataclasses

import numpy as np
import pytest

from bridgeact_jax.errors import UsageError
from bridgeact_jax.sim import cameras, environment, events, sensing
from bridgeact_jax.sim.disturbances import CALM, Disturbance
from bridgeact_jax.sim.environment import CONTROL_PERIOD, Environment, episode_rng
from bridgeact_jax.sim.tasks import TASKS
from tests.sim.episodes import follow

SEED = 7
CAMERA = cameras.camera_poses()[0]
AXES = dataclasses.fields(Disturbance)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).uniform([0.35, -0.25, 0.0], [0.65, 0.25, 0.1], (5000, 3))


# ---- names and limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_axis(axis):
    assert axis.default == 0 == axis.metadata["sweep"][0] and axis.metadata["help"]
    for value in axis.metadata["sweep"]:
        assert type(value) is type(axis.default)
        assert (Disturbance(**{axis.name: value}) == CALM) == (value == 0)
    for value in (float("nan"), 1e6, "1"):
        with pytest.raises(UsageError, match=axis.name):
            Disturbance(**{axis.name: value})


# ---- sensors ------------------------------------------------------------------------------------


def test_noise_lies_along_the_rays(points):
    noisy = sensing.noisy(points, CAMERA, 0.01, np.random.default_rng(1))
    rays = points - CAMERA[0]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    along = np.sum((noisy - points) * rays, axis=1)
    assert np.std(along) == pytest.approx(0.01, rel=0.03) and abs(along.mean()) < 5e-4
    np.testing.assert_allclose(noisy - points, along[:, None] * rays, atol=1e-12)


def test_quantised_depths_are_whole_steps(points):
    quantised = sensing.quantised(points, CAMERA, 0.007)
    before, after = ((x - CAMERA[0]) @ CAMERA[1] for x in (points, quantised))
    steps = after[:, 2] / 0.007
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert np.abs(after[:, 2] - before[:, 2]).max() <= 0.0035 + 1e-12
    np.testing.assert_allclose(after[:, :2] / after[:, 2:], before[:, :2] / before[:, 2:])


def test_stereo_errs_with_the_square_of_depth_and_alike_within_a_window():
    camera = (np.zeros(3), np.eye(3))
    columns = 0.5 * sensing.WINDOW + sensing.WINDOW * np.arange(-500, 500)  # a window each
    ratios = []
    for depth in (0.5, 1.0):
        rays = np.column_stack([columns, np.zeros(1000), np.ones(1000)])
        pairs = depth * np.concatenate([rays, rays + [0.2 * sensing.WINDOW, 0, 0]])
        moved = sensing.mismatched(pairs, camera, 0.004, np.random.default_rng(1))
        np.testing.assert_allclose(moved[:, :2] / moved[:, 2:], pairs[:, :2] / pairs[:, 2:])
        error = moved[:, 2] - depth
        np.testing.assert_allclose(error[:1000], error[1000:])
        assert abs(np.corrcoef(error[:999], error[1:1000])[0, 1]) < 0.1
        ratios.append(error.std() / 0.004)
    np.testing.assert_allclose(ratios, [0.25, 1.0], rtol=0.08)


def test_a_network_misjudges_depth_by_one_plane_of_factors(points):
    local, logs = (points - CAMERA[0]) @ CAMERA[1], []
    picture = local[:, :2] / local[:, 2:]
    plane = np.column_stack([np.ones(len(points)), picture])
    for seed in range(300):
        moved = sensing.misjudged(points, CAMERA, 0.05, np.random.default_rng(seed))
        factor = ((moved - CAMERA[0]) @ CAMERA[1]) / local
        np.testing.assert_allclose(factor, factor[:, :1].repeat(3, axis=1))  # along the rays
        log = np.log(factor[:, 0])
        left = log - plane @ np.linalg.lstsq(plane, log)[0]
        np.testing.assert_allclose(left, 0, atol=1e-9)
        logs.append(log)
    corners = np.tan(cameras.FIELD_OF_VIEW / 2) / np.sqrt(3)  # where u, v have their mean square
    expected = 0.05 * np.sqrt((1 + np.mean((picture / corners) ** 2, axis=0).sum() / 3) / (5 / 3))
    assert np.sqrt(np.mean(np.square(logs))) == pytest.approx(expected, rel=0.1)


def test_lasting_errors_are_each_cameras_and_episodes_own(monkeypatch):
    drawn = []

    def measured(points, pose, disturbance, rng, lasting):
        drawn.append((rng.random(), lasting.random()))
        return points, np.ones(len(points), bool)

    monkeypatch.setattr(environment, "measured", measured)
    env = Environment("lift")
    for episode in (0, 1):
        start = env.reset(SEED, episode)
        for _ in range(2):
            env.cloud()
            env.step(start.position, start.rotation, 1.0)
    new, lasting = np.reshape(drawn, (2, 2, 2, 2)).transpose(3, 0, 1, 2)  # episode, step, camera
    assert len(np.unique(new)) == 8 and len(np.unique(lasting)) == 4
    np.testing.assert_array_equal(lasting[:, 0], lasting[:, 1])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_holes_take_their_share_in_patches(points, share):
    lost = sensing.lost_in_holes(points, CAMERA, share, np.random.default_rng(2))
    assert lost.sum() == round(share * len(points))
    if share == 0.5:  # a neighbour in the picture mostly shares a point's fate
        local = (points - CAMERA[0]) @ CAMERA[1]
        picture = local[:, :2] / local[:, 2:]
        near = np.linalg.norm(picture[:500, None] - picture, axis=2)
        near[np.arange(500), np.arange(500)] = np.inf
        assert np.mean(lost[:500] == lost[near.argmin(axis=1)]) > 0.85
    assert not sensing.lost_in_holes(points[:0], CAMERA, share, np.random.default_rng(2)).any()


@pytest.mark.parametrize(
    "axis, value", [("sensor_noise", 0.01), ("quantisation", 0.01), ("holes", 0.5)]
)
def test_depth_pictures_are_measured_as_points_are(axis, value):
    depth = np.random.default_rng(0).uniform(0.5, 1.5, (40, 40)).astype(np.float32)
    depth[:10] = 0
    matrix = np.array([[50, 0, 20], [0, 50, 20], [0, 0, 1.0]])
    rngs = [np.random.default_rng(seed) for seed in (1, 2, 1, 2)]
    calm = sensing.measured_depth(depth, matrix, CALM, *rngs[:2])
    np.testing.assert_allclose(calm, depth, rtol=1e-6)
    disturbed = sensing.measured_depth(
        depth, matrix, Disturbance(**{axis: value}), *rngs[2:]
    )
    assert not disturbed[:10].any() and disturbed.dtype == np.float32
    off, seen = (disturbed - depth)[10:], disturbed[10:] > 0
    if axis == "holes":
        assert seen.mean() == 0.5
        np.testing.assert_allclose(off[seen], 0, atol=1e-6)
    elif axis == "quantisation":
        np.testing.assert_allclose(disturbed / value, np.round(disturbed / value), atol=1e-4)
        assert np.abs(off).max() <= value / 2 + 1e-6
    else:  # along the ray, so that depth changes a little less
        assert 0.9 * value < off.std() < value


@pytest.mark.parametrize("turn, shift", [(0.3, 0.0), (-0.3, 0.0), (0.0, 0.1)])
def test_moved_cameras(turn, shift):
    (p0, r0), (p1, r1) = (
        cameras.jittered_poses(np.random.default_rng(3), turn=t, shift=s)[0]
        for t, s in ((0.0, 0.0), (turn, shift))
    )
    cos, sin = np.cos(turn), np.sin(turn)
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    np.testing.assert_allclose(r1, about_z @ r0, atol=1e-12)
    if turn:  # about the middle of the table; each episode's own shift is not turned
        np.testing.assert_allclose(
            np.linalg.norm(p1 - p0), 2 * abs(np.sin(turn / 2)) * 0.85 * np.cos(np.pi / 4)
        )
    else:
        np.testing.assert_allclose(p1 - p0, [0, shift, 0], atol=1e-12)


def test_a_calm_cloud_is_what_perfect_cameras_see():
    env = Environment("lift")
    env.reset(SEED, 0)
    table = env.model.geom("table").id
    is_object = ~env.world.is_robot & (np.arange(env.model.ngeom) != table)
    perfect = cameras.cloud(
        env.model, env.data, env.cameras, is_object, table,
        episode_rng("cloud/evaluation", "lift", SEED, 0, 0), 2048,
    )
    np.testing.assert_array_equal(env.cloud(), perfect)
    assert env.events is None


SENSING = [
    {axis.name: axis.metadata["sweep"][-1]} for axis in AXES if axis.metadata["sensing"]
]


@pytest.mark.parametrize("axis", SENSING, ids=lambda axis: next(iter(axis)))
def test_sensing_changes_the_cloud_alone(axis):
    calm, disturbed = Environment("lift"), Environment("lift", disturbance=Disturbance(**axis))
    one, other = calm.reset(SEED, 0), disturbed.reset(SEED, 0)
    for _ in range(2):
        np.testing.assert_array_equal(one.position, other.position)
        np.testing.assert_array_equal(calm.data.qpos, disturbed.data.qpos)
        cloud = disturbed.cloud()
        assert cloud.shape == (2048, 3) and not np.array_equal(calm.cloud(), cloud)
        np.testing.assert_array_equal(cloud, disturbed.cloud())
        one, other = (
            env.step(one.position - [0, 0, 0.02], one.rotation, 1.0) for env in (calm, disturbed)
        )
    if "points" in axis:
        assert len(np.unique(cloud, axis=0)) == axis["points"]


# ---- the world ----------------------------------------------------------------------------------


def test_axes_that_are_on_leave_the_layout_alone():
    disturbance = Disturbance(target_speed=0.01, obstacle=1, distractors=3, latency=2)
    calm, disturbed = Environment("lift"), Environment("lift", disturbance=disturbance)
    for episode in range(3):
        one, other = calm.reset(SEED, episode), disturbed.reset(SEED, episode)
        np.testing.assert_array_equal(one.position, other.position)
        for name in calm.layout.things:
            np.testing.assert_array_equal(calm.layout[name].xy, disturbed.layout[name].xy)
            np.testing.assert_allclose(calm.world.position(name), disturbed.world.position(name))
        for one, other in zip(calm.cameras, disturbed.cameras, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_disturbed(task):
    on = {axis.name: axis.metadata["sweep"][-1] for axis in AXES}
    env = Environment(task, disturbance=Disturbance(**on))
    start = env.reset(SEED, 0)
    for _ in range(3):
        env.step(start.position, start.rotation, 1.0)
    assert env.valid and not env.done and env.cloud().shape == (2048, 3)
    if env.events.drift is not None:
        thing = env.model.body(env.model.body_rootid[env.model.body(env.task.targets[0]).id]).name
        assert np.linalg.norm(env.world.position(thing)[:2] - env.layout[thing].xy) > 0.005


@pytest.mark.parametrize("task, target", [("lift", "cube"), ("reach", "post")])
def test_the_target_drifts_until_it_is_touched(task, target):
    speed = 0.02
    env = Environment(task, disturbance=Disturbance(target_speed=speed))
    start = env.reset(SEED, 1)
    places = [env.world.position(target)]
    for _ in range(10):
        env.step(start.position, start.rotation, 1.0)
        places.append(env.world.position(target))
    moved = np.diff(places, axis=0)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), speed * CONTROL_PERIOD, rtol=0.02)
    np.testing.assert_allclose(moved, moved[:1].repeat(10, axis=0), atol=1e-4)
    others = [name for name in env.layout.things if name != target]
    for name in others:
        np.testing.assert_allclose(
            env.world.position(name)[:2], env.layout[name].xy, atol=1e-4
        )
    if task == "lift":
        rotation = np.array([0.0, *_half(env.world.yaw(target)), 0.0])
        for height, gripper, steps in ((0.1, 1, 10), (0.01, 1, 8), (0.01, 0, 6)):
            for _ in range(steps):  # the hand goes along with it, then closes
                env.step(env.world.position(target) + [0, 0, height], rotation, gripper)
        rest = env.world.position(target)
        env.step(env.world.tool, rotation, 0.0)
        assert np.linalg.norm(env.world.position(target) - rest) < 0.2 * speed * CONTROL_PERIOD


def _half(yaw):
    return np.cos(yaw / 2), np.sin(yaw / 2)


def test_an_obstacle_rises_on_the_path_and_striking_it_is_unsafe():
    env = Environment("lift", disturbance=Disturbance(obstacle=1))
    struck = tried = 0
    for episode in range(4):
        start = env.reset(SEED, episode)
        spot = env.events.obstacle.spot
        assert env.world.top(events.OBSTACLE) < 0 and env.failure_kind != "unsafe"
        if spot is None:
            continue
        tried += 1
        for _ in range(5):
            env.step(start.position, start.rotation, 1.0)
        assert env.world.top(events.OBSTACLE) < 0  # the arm has not set out
        follow(env, env.waypoints())
        assert np.linalg.norm(env.world.position(events.OBSTACLE)[:2] - spot) < 1e-9
        assert env.world.top(events.OBSTACLE) > 0.1 and env.done and not env.success
        struck += env.failure_kind == "unsafe"
    assert tried and struck == tried


def test_clutter_lies_apart_and_is_the_wrong_object():
    env = Environment("lift", disturbance=Disturbance(distractors=4))
    names = events.clutter_names(4)
    for episode in range(5):
        env.reset(SEED, episode)
        places = [env.world.position(name)[:2] for name in (*names, *env.layout.things)]
        apart = np.linalg.norm(np.subtract.outer(places, places).diagonal(axis1=1, axis2=3), axis=2)
        assert np.min(apart + np.eye(len(places))) > 0.05
    follow(env, env.waypoints(), steps=200)
    assert env.success
    env.reset(SEED, 0)
    plan = env.waypoints()
    offset = env.world.position(names[0]) - env.world.position("cube")
    position, rotation = plan.position.copy(), plan.rotation.copy()
    position[1:] += offset
    rotation[1:] = [0, *_half(env.world.yaw(names[0])), 0]
    follow(env, plan._replace(position=position, rotation=rotation))
    assert env.failure_kind == "wrong_object"


@pytest.mark.parametrize("latency", [1, 3])
def test_latency_delays_the_response(latency):
    calm = Environment("reach")
    late = Environment("reach", disturbance=Disturbance(latency=latency))
    start = calm.reset(SEED, 0)
    late.reset(SEED, 0)
    hold = (start.position, start.rotation, 1.0)
    for _ in range(latency):
        calm.step(*hold)
    for i in range(1, 6):
        command = (start.position + [0.01 * i, 0, 0], start.rotation, float(i < 3))
        calm.step(*command)
        late.step(*command)
    for _ in range(latency):
        late.step(*hold)
    np.testing.assert_array_equal(calm.data.qpos, late.data.qpos)
