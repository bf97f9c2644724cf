"""A mirrored and turned window, against SciPy and against the example it gives."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.models.observation import Proprioception
from bridgeact_jax.training.augmentation import augment, blurred, imperfect
from bridgeact_jax.training.config import base_config, expert_config
from bridgeact_jax.training.example import _displace, make_example
from tests.training.test_loader import OPTIONS, random_trajectories

MIRROR = np.diag([1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def window():
    """One window of random motion, with a cloud."""
    sampler = WindowSampler(random_trajectories(0), **{**OPTIONS, "with_cloud": True})
    return jax.tree.map(lambda x: x[0], sampler.gather(sampler.rows(0, 0, 1)))


def options(**values):
    config = base_config()
    with config.unlocked():
        config.augment.update(values)
    return config.augment


def matrices(rows):
    return Rotation.from_quat(np.asarray(rows)[:, 3:7], scalar_first=True).as_matrix()


@pytest.mark.parametrize("mirror", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_everything_moves_by_one_reflection_and_turn(window, mirror, seed):
    seen = augment(jax.random.key(seed), window, options(mirror=mirror, yaw=2.0))
    flip = MIRROR if mirror else np.eye(3)
    turned = matrices(seen.plan)[0] @ (flip @ matrices(window.plan)[0] @ flip).T
    angle = Rotation.from_matrix(turned).as_rotvec()
    np.testing.assert_allclose(angle[:2], 0, atol=1e-5)
    assert 0.01 < abs(angle[2]) <= 2.0
    for name in ("history", "future", "plan"):
        new, old = np.asarray(getattr(seen, name)), getattr(window, name)
        np.testing.assert_allclose(new[:, :3], old[:, :3] @ (turned @ flip).T, atol=1e-5)
        expected = turned @ flip @ matrices(old) @ flip
        np.testing.assert_allclose(matrices(new), expected, atol=1e-5)
        np.testing.assert_array_equal(new[:, 7], old[:, 7])
    cloud = window.cloud.astype(np.float32) @ (turned @ flip).T
    np.testing.assert_allclose(seen.cloud, cloud, atol=1e-5)


def test_nothing_moves_where_nothing_is_allowed(window):
    seen = augment(jax.random.key(0), window, options())
    np.testing.assert_allclose(seen.future, window.future, atol=1e-6)
    np.testing.assert_array_equal(seen.cloud, window.cloud.astype(np.float32))


def test_the_target_turns_with_what_is_observed(window):
    """Observing a turned window is turning what was observed: chunk, guidance and points alike."""
    config = base_config()
    config.model.points, config.noise.waypoint, config.noise.common = 5, 0.0, 0.0
    config.noise.recovery_position = config.noise.recovery_rotation = 1e-9
    config.model.crop_radius, config.model.horizon = 10.0, 4
    model = expert_config(config)
    plain = make_example(jax.random.key(4), window, model, config)
    config.augment.yaw = 3.0
    turned = make_example(jax.random.key(4), window, model, config)
    old, new = np.asarray(plain.chunk[:, :3]), np.asarray(turned.chunk[:, :3])
    angle = np.arctan2(new[0, 1], new[0, 0]) - np.arctan2(old[0, 1], old[0, 0])
    assert abs(np.sin(angle)) > 0.01
    turn = Rotation.from_rotvec([0, 0, angle]).as_matrix()
    np.testing.assert_allclose(new, old @ turn.T, atol=1e-4)
    seen = turned.observation
    np.testing.assert_allclose(seen.points, plain.observation.points @ turn.T, atol=1e-4)
    window_before = np.asarray(plain.observation.window[:, :3])
    np.testing.assert_allclose(seen.window[:, :3], window_before @ turn.T, atol=1e-3)


def test_lost_points_are_a_share_of_the_crop_and_noise_has_its_scale():
    points, mask = np.zeros((1000, 3), np.float32), np.ones(1000, bool)
    keys = jax.random.split(jax.random.key(0), 400)
    worse = jax.vmap(lambda k: imperfect(k, points, mask, options(point_dropout=0.4)))(keys)
    kept = np.asarray(worse[1]).mean(axis=1)
    assert 0.53 < kept.min() < 0.65 and kept.max() > 0.98
    np.testing.assert_allclose(kept.mean(), 0.8, atol=0.02)
    noisy, same = imperfect(keys[0], points, mask, options(point_noise=0.01))
    np.testing.assert_allclose(np.std(noisy), 0.01, rtol=0.05)
    np.testing.assert_array_equal(same, mask)


def test_an_empty_closed_hand_carries_nothing_and_keeps_away_from_things(window):
    """What is pushed stays; near it the hand is displaced by as little as the floor allows."""
    noise = base_config().noise
    history = window.history.copy()
    history[:, 7] = 0.0
    here = history[window.steps - 1, :3]
    cloud = np.float32(here + np.array([[0.001, 0, 0], [1.0, 1.0, 1.0]]))
    closed = window._replace(history=history, cloud=cloud)

    def displaced(width):
        moved = closed._replace(gripper_width=np.float32(width))
        seen, shift, _ = jax.vmap(lambda k: _displace(k, moved, noise))(
            jax.random.split(jax.random.key(0), 500)
        )
        return np.asarray(seen.cloud), np.asarray(shift)

    seen, shift = displaced(0.0)
    np.testing.assert_array_equal(seen, np.broadcast_to(cloud, seen.shape))
    floor = noise.recovery_floor + noise.recovery_slope * 0.001
    np.testing.assert_allclose(shift.std(), floor, rtol=0.1)
    seen, shift = displaced(0.5)
    assert shift.std() > 3 * floor and np.ptp(seen[:, 0], axis=0).min() > 0.01


def test_past_poses_get_noise_and_the_current_one_none():
    """0.01 m per axis, 0.1 rad per axis; SciPy measures the turns."""
    rotation = Rotation.random(3, random_state=0).as_quat(scalar_first=True)
    arm = Proprioception(np.ones((3, 3)), rotation, np.ones(()), np.ones(()))
    arm = jax.tree.map(jax.numpy.float32, arm)
    draw = partial(blurred, proprioception=arm, options=options(past_noise=0.01))
    seen = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))
    shift = np.asarray(seen.position) - 1
    assert not shift[:, -1].any() and np.all(np.asarray(seen.rotation)[:, -1] == arm.rotation[-1])
    np.testing.assert_allclose(shift[:, :-1].std(axis=0), 0.01, rtol=0.05)
    for pose in range(2):
        turned = Rotation.from_quat(np.asarray(seen.rotation)[:, pose], scalar_first=True)
        turn = turned * Rotation.from_quat(rotation[pose], scalar_first=True).inv()
        np.testing.assert_allclose(turn.as_rotvec().std(axis=0), 0.1, rtol=0.05)
    np.testing.assert_array_equal(seen.gripper_width, 1)


def test_the_true_focus_is_the_focus_without_the_planners_errors(window):
    """The same where there are none; with errors the same place of the curve without them."""
    config = base_config()
    config.model.horizon, config.model.points = 4, 5
    model = expert_config(config)
    config.noise.waypoint = config.noise.common = 0.0
    exact = make_example(jax.random.key(4), window, model, config)
    np.testing.assert_allclose(exact.true_focus, exact.observation.focus, atol=1e-5)
    config.noise.common = 0.003
    shifted = make_example(jax.random.key(4), window, model, config)
    off = shifted.observation.focus - exact.observation.focus
    assert 1e-3 < np.linalg.norm(off) < 0.2
    np.testing.assert_allclose(shifted.true_focus, exact.true_focus, atol=0.05)
