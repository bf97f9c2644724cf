"""Projection and keyframes against naive float64 loops and hand-made trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeact_jax.geometry import cameras, clouds, poses
from bridgeact_jax.geometry.guidance import Waypoints, build_guidance, sample
from bridgeact_jax.geometry.keyframes import find_keyframes
from bridgeact_jax.geometry.projection import (
    EVENT_LENGTH,
    REACH,
    UNLIKELY,
    advance,
    project_history,
)

advance_jit, build, sample_jit = jax.jit(advance), jax.jit(build_guidance), jax.jit(sample)
UP = np.array([1.0, 0, 0, 0], np.float32)


def plan(position, gripper):
    rotation = np.tile(UP, (len(position), 1))
    return Waypoints(
        jnp.asarray(position, jnp.float32),
        jnp.asarray(rotation),
        jnp.asarray(gripper, jnp.float32),
        jnp.asarray(len(position)),
    )


PICK = plan([[0, 0, 0.2], [0.2, 0, 0.2], [0.2, 0, 0.1], [0.2, 0, 0.25]], [1, 1, 0, 0])


def naive_advance(curve, progress, limit, position, moved):
    """A loop over the curve's pieces in float64; distances within the stretch that is allowed."""
    points, s = np.asarray(curve.position, np.float64), np.asarray(curve.progress, np.float64)
    best, found = np.inf, progress
    for i in range(len(points) - 1):
        first, last = max(s[i], progress), min(s[i + 1], limit)
        if last < first or s[i + 1] == s[i]:
            continue
        way = points[i + 1] - points[i]
        t = (position - points[i]) @ way / max(way @ way, 1e-30)
        place = np.clip(s[i] + t * (s[i + 1] - s[i]), first, last)
        point = points[i] + (place - s[i]) / (s[i + 1] - s[i]) * way
        unlikely = UNLIKELY * max(place - progress - moved, 0)
        price = np.hypot(np.linalg.norm(point - position), unlikely)
        if price < best:
            best, found = price, place
    return found, best


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.25))
def test_advance_is_the_naive_search_of_the_stretch_ahead(seed, progress):
    rng = np.random.default_rng(seed)
    curve = build(PICK)
    start, _, _ = sample_jit(curve, jnp.asarray(progress))
    position = np.asarray(start) + rng.normal(scale=0.03, size=3)
    limit = min(progress + REACH, 0.3)
    found = float(advance_jit(curve, jnp.asarray(progress), jnp.asarray(position), UP, 1.0))
    assert progress - 1e-6 <= found <= limit + 1e-6
    moved = np.linalg.norm(position - np.asarray(start))
    expected, least = naive_advance(curve, progress, limit, position, moved)
    point = np.asarray(sample_jit(curve, jnp.asarray(found))[0])
    unlikely = UNLIKELY * max(found - progress - moved, 0)
    price = np.hypot(np.linalg.norm(point - position), unlikely)
    assert abs(found - expected) < 1e-4 or abs(price - least) < 1e-5


@pytest.mark.parametrize("aside", [0.0, 0.004])
def test_the_way_there_comes_before_the_way_back(aside):
    """Along a push and back, whatever lies nearer by little; back only when the hand goes back."""
    corner = np.array([0.2, 0, 0])
    curve = build(plan([[0, 0, 0], corner, [0.12, 0, 0.0], [0.12, 0, 0.1]], [0, 0, 0, 0]))
    progress = jnp.zeros(())
    for x in np.arange(0, 0.201, 0.02):
        place = jnp.array([x, aside, 0])
        progress = advance_jit(curve, progress, place, UP, 0.0)
        np.testing.assert_allclose(progress, x, atol=1e-3)
    for x in np.arange(0.2, 0.13, -0.02):
        progress = advance_jit(curve, progress, jnp.array([x, aside, 0]), UP, 0.0)
        np.testing.assert_allclose(progress, 0.4 - x, atol=1e-3)


def test_following_the_curve_recovers_its_progress():
    curve = build(PICK)
    progress = jnp.zeros(())
    for s in np.arange(0, 0.3, 0.02):
        position, rotation, _ = sample_jit(curve, jnp.asarray(s))
        progress = advance_jit(curve, progress, position, rotation, 1.0)
        np.testing.assert_allclose(progress, s, atol=1e-5)


def test_an_unexecuted_event_holds_and_an_executed_one_settles():
    curve = build(PICK)
    grasp, above = jnp.array([0.2, 0, 0.1]), jnp.array([0.2, 0, 0.15])
    progress = jnp.asarray(0.28)
    for _ in range(4):
        progress = advance_jit(curve, progress, above, UP, 1.0)
    assert progress <= 0.3
    progress = advance_jit(curve, jnp.asarray(0.29), grasp, UP, 0.0)
    np.testing.assert_allclose(progress, 0.3, atol=1e-5)
    for step in range(1, 6):
        progress = advance_jit(curve, progress, grasp, UP, 0.0)
        np.testing.assert_allclose(progress, 0.3 + step * EVENT_LENGTH / 5, atol=1e-5)
    progress = advance_jit(curve, progress, above, UP, 0.0)
    np.testing.assert_allclose(progress, 0.37, atol=1e-4)


def test_a_command_far_from_its_event_does_not_skip_the_plan():
    curve = build(PICK)
    progress = advance_jit(curve, jnp.asarray(0.05), jnp.array([0.06, 0, 0.2]), UP, 0.0)
    np.testing.assert_allclose(progress, 0.06, atol=1e-4)


def test_a_path_that_crosses_itself_does_not_jump_ahead():
    curve = build(plan([[0, 0, 0], [0.3, 0, 0], [0.3, 0, 0.001], [0, 0, 0.001]], [1, 1, 1, 1]))
    progress = jnp.zeros(())
    for x in np.arange(0, 0.25, 0.02):
        progress = advance_jit(curve, progress, jnp.array([x, 0, 0.001]), UP, 1.0)
        np.testing.assert_allclose(progress, x, atol=2e-3)


def test_history_is_the_loop_of_single_steps_and_ignores_padding():
    rng = np.random.default_rng(0)
    curve = build(PICK)
    position = np.asarray(sample_jit(curve, jnp.linspace(0, 0.45, 40))[0])
    position = (position + rng.normal(scale=0.01, size=position.shape)).astype(np.float32)
    command = (np.arange(40) < 27).astype(np.float32)
    rotation = np.tile(UP, (40, 1))
    progress = jnp.zeros(())
    for t in range(1, 31):
        progress = advance_jit(curve, progress, position[t], rotation[t], command[t])
    found = jax.jit(project_history)(curve, position, rotation, command, jnp.asarray(31))
    np.testing.assert_allclose(found, progress, atol=1e-6)
    assert progress > 0.3


def dense(waypoints, step):
    curve = build(waypoints)
    s = jnp.arange(0, float(curve.progress[-1]), step)
    return [np.asarray(x) for x in sample_jit(curve, s)]


def keyframes(position, rotation, gripper, pad=7, **options):
    padding = ((0, pad), (0, 0))
    index, number = find_keyframes(
        np.pad(position, padding, mode="edge"),
        np.pad(rotation, padding, mode="edge"),
        np.pad(gripper, (0, pad), mode="edge"),
        len(position),
        **options,
    )
    return np.asarray(index), int(number)


def test_keyframes_of_a_guidance_curve_are_its_waypoints():
    position, rotation, gripper = dense(PICK, 0.005)
    index, number = keyframes(position, rotation, gripper)
    assert np.all(np.diff(index[:number]) > 0) and np.all(index[number:] == len(position) - 1)
    flip = np.flatnonzero(np.diff(gripper))[0] + 1
    assert {0, flip, len(position) - 1} <= set(index[:number])
    found = position[index[:number]]
    for waypoint in PICK.position:
        assert np.linalg.norm(found - waypoint, axis=1).min() < 0.011
    assert number <= 6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_curve_through_the_keyframes_stays_within_tolerance(seed):
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 61)[:, None]
    position = sum(
        rng.normal(scale=0.1 / k, size=3) * np.sin(np.pi * k * t + rng.uniform(0, 6))
        for k in range(1, 4)
    ).astype(np.float32)
    gripper = np.ones(61, np.float32)
    gripper[rng.integers(5, 55) :] = 0
    rotation = np.tile(UP, (61, 1))
    index, number = keyframes(position, rotation, gripper, max_keyframes=32)
    assert number <= 32
    curve = build(plan(position[index[:number]], gripper[index[:number]]))
    points, _, _ = sample_jit(curve, jnp.linspace(0, curve.progress[-1], 4000))
    miss = np.linalg.norm(position[:, None] - np.asarray(points), axis=-1).min(axis=1)
    assert miss.max() <= 0.0105


def test_a_pause_is_a_keyframe_and_too_little_room_is_reported():
    x = np.concatenate([np.linspace(0, 0.2, 20), np.full(8, 0.2), np.linspace(0.21, 0.4, 20)])
    position = np.stack([x, 0 * x, 0 * x], axis=1).astype(np.float32)
    rotation, gripper = np.tile(UP, (len(x), 1)), np.ones(len(x), np.float32)
    index, number = keyframes(position, rotation, gripper)
    assert number == 3 and 20 <= index[1] <= 27
    wave = position + np.stack([0 * x, 0.1 * np.sin(60 * x), 0 * x], axis=1).astype(np.float32)
    assert keyframes(wave, rotation, gripper, max_keyframes=4)[1] == 5


def test_projection_of_unprojected_pixels_is_the_identity():
    rng = np.random.default_rng(1)
    rotation = rng.normal(size=4)
    rotation /= np.linalg.norm(rotation)
    camera = cameras.Camera(
        poses.Pose(jnp.asarray(rng.normal(size=3)), jnp.asarray(rotation)),
        fx=200.0, fy=210.0, cx=63.5, cy=47.5,
    )
    pixels = jnp.asarray(rng.uniform(0, 100, (50, 2)))
    depth = jnp.asarray(rng.uniform(0.3, 2.0, 50))
    points = cameras.unproject(camera, pixels, depth)
    again, z = cameras.project(camera, points)
    np.testing.assert_allclose(again, pixels, atol=1e-3)
    np.testing.assert_allclose(z, depth, atol=1e-5)
    ahead = cameras.unproject(camera, jnp.array([[63.5, 47.5]]), jnp.array([1.5]))
    np.testing.assert_allclose(
        np.linalg.norm(ahead - camera.T_base_camera.position), 1.5, atol=1e-5
    )


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.5])
def test_crop_is_a_subset_without_repeats_and_its_mask_counts(radius):
    rng = np.random.default_rng(2)
    cloud = rng.uniform(-0.3, 0.3, (500, 3)).astype(np.float32)
    center = np.array([0.1, 0, 0], np.float32)
    points, mask = clouds.crop(jax.random.key(0), cloud, center, radius, 64)
    inside = np.linalg.norm(cloud - center, axis=1) <= radius
    assert mask.sum() == min(64, inside.sum())
    kept = np.asarray(points)[np.asarray(mask)] + center
    distance = np.linalg.norm(kept[:, None] - cloud[inside], axis=-1)
    assert np.all(distance.min(axis=1, initial=np.inf) < 1e-6)
    assert len(np.unique(distance.argmin(axis=1))) == len(kept) if len(kept) else True
    np.testing.assert_array_equal(np.asarray(points)[~np.asarray(mask)], 0)


def test_crop_is_uniform_over_the_points_inside():
    cloud = jnp.zeros((40, 3)).at[:, 0].set(jnp.arange(40) * 1e-3)
    draw = jax.vmap(lambda key: clouds.crop(key, cloud, jnp.zeros(3), 1.0, 10)[0])
    points = np.asarray(draw(jax.random.split(jax.random.key(1), 4000)))
    share = np.bincount(np.rint(points[..., 0].ravel() * 1e3).astype(int), minlength=40) / 40_000
    np.testing.assert_allclose(share, 1 / 40, rtol=0.15)


def test_crop_is_denser_around_its_focus_and_reaches_beyond_the_radius_there():
    """Drawing one point, the chances are as the weights; far from both nothing is drawn."""
    radius, focus = 0.2, np.array([0.25, 0, 0], np.float32)
    cloud = np.array([[0.25, 0, 0], [0.33, 0, 0], [0.0, 0, 0], [0.45, 0, 0], [-0.3, 0, 0]])
    draw = jax.vmap(lambda key: clouds.crop(key, cloud, jnp.zeros(3), radius, 1, focus)[0])
    points = np.asarray(draw(jax.random.split(jax.random.key(1), 20_000)))[:, 0, 0]
    away = np.array([0.0, 0.08, 0.25])
    weight = np.exp(-(away**2) / (2 * clouds.FOCUS**2)) + clouds.ELSEWHERE
    share = [np.mean(np.isclose(points, x, atol=1e-3)) for x in (0.25, 0.33, 0.0)]
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.02)
    assert sum(share) == pytest.approx(1)
