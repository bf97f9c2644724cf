"""The guidance curve against SciPy's B-splines, closed forms and its own promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from bridgeact_jax.geometry import guidance as guidance_lib
from bridgeact_jax.geometry.guidance import EVENT_LENGTH, Waypoints, build_guidance, sample
from bridgeact_jax.geometry.noise import perturb_waypoints

build = jax.jit(build_guidance, static_argnums=1)


def plan(position, rotation=None, gripper=None, room=0):
    """Waypoints padded with junk that must be ignored."""
    position = np.asarray(position, np.float32)
    count = len(position)
    if rotation is None:
        rotation = np.tile(np.array([1.0, 0, 0, 0], np.float32), (count, 1))
    gripper = np.ones(count) if gripper is None else np.asarray(gripper, np.float32)
    pad = ((0, room), (0, 0))
    return Waypoints(
        jnp.asarray(np.pad(position, pad, constant_values=9.0)),
        jnp.asarray(np.pad(rotation, pad, constant_values=0.5)),
        jnp.asarray(np.pad(gripper, (0, room), constant_values=0.0)),
        jnp.asarray(count),
    )


def random_plan(seed, count=6, room=3):
    rng = np.random.default_rng(seed)
    gripper = np.ones(count)
    gripper[2:4] = 0
    rotation = Rotation.random(count, random_state=seed).as_quat(scalar_first=True)
    return plan(rng.uniform(-0.3, 0.3, (count, 3)), rotation, gripper, room)


def test_curve_is_scipys_b_spline_with_multiple_knots():
    """Doubled knots inside, tripled at the gripper event, quadrupled at the ends, in float64."""
    waypoints = random_plan(0, room=0)
    position = np.asarray(waypoints.position, np.float64)
    event = np.array([False, False, True, False, True, False])
    polygons = np.asarray(guidance_lib.control_points(waypoints.position, jnp.asarray(event)))
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(position, axis=0), axis=1))])
    multiplicity = np.where(event, 3, 2)
    multiplicity[[0, -1]] = 4
    control = [polygons[0, 0]]
    for k, polygon in enumerate(polygons):
        control += [polygon[1], polygon[2]]
        if event[k + 1] or k == len(polygons) - 1:
            control.append(polygon[3])
    spline = BSpline(np.repeat(knots, multiplicity), np.array(control, np.float64), 3)
    samples = 8
    curve = build(waypoints, samples)
    u = np.arange(1, samples + 1) / samples
    for k in range(len(polygons)):
        rows = 1 + k * (samples + 1) + np.arange(samples)
        expected = spline(knots[k] + u * (knots[k + 1] - knots[k]) * (1 - 1e-12))
        np.testing.assert_allclose(curve.position[rows], expected, atol=1e-6)


def test_interpolates_every_waypoint_and_ignores_padding():
    padded, exact = random_plan(1, room=4), random_plan(1, room=0)
    curve = build(exact, 12)
    ends = np.arange(len(exact.position) - 1) * 13 + 12
    np.testing.assert_allclose(curve.position[ends], exact.position[1:], atol=1e-6)
    np.testing.assert_allclose(
        np.abs(np.sum(curve.rotation[ends] * exact.rotation[1:], axis=-1)), 1.0, atol=1e-5
    )
    longer = build(padded, 12)
    for with_room, without in zip(longer, curve, strict=True):
        np.testing.assert_allclose(with_room[: len(without)], without, atol=1e-6)
        np.testing.assert_allclose(with_room[len(without) :], without[-1:].repeat(52, 0), atol=1e-6)


def test_straight_line_has_closed_form():
    curve = build(plan([[0, 0, 0], [0.1, 0, 0], [0.4, 0, 0]]), 12)
    np.testing.assert_allclose(curve.progress[-1], 0.4, atol=1e-6)
    for s in (0.0, 0.05, 0.1, 0.3, 0.4, 1.0):
        position, _, _ = sample(curve, jnp.asarray(s))
        np.testing.assert_allclose(position, [min(s, 0.4), 0, 0], atol=1e-6)


def test_right_angle_is_an_exact_corner():
    """A descent onto an object after level travel must not rise above the level."""
    curve = build(plan([[0, 0, 0.2], [0.3, 0, 0.2], [0.3, 0, 0.1]]), 12)
    assert np.max(curve.position[:, 2]) <= 0.2 + 1e-6
    np.testing.assert_allclose(curve.progress[-1], 0.4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-4, 0.3))
def test_never_swings_out_between_close_waypoints(seed, closeness):
    """Within 8 % of each chord's length, however close two waypoints are to each other."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-0.3, 0.3, (6, 3))
    position[3] = position[2] + closeness * rng.normal(size=3) / 3
    curve = np.asarray(build(plan(position), 12).position)
    for k in range(5):
        start, end = position[k], position[k + 1]
        chord = end - start
        points = curve[1 + 13 * k : 13 * k + 13]
        t = np.clip((points - start) @ chord / (chord @ chord), 0, 1)
        off = np.linalg.norm(points - start - t[:, None] * chord, axis=1).max()
        assert off <= 0.08 * np.linalg.norm(chord) + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_turns_with_the_waypoints(seed):
    """Equivariance: the curve of turned waypoints is the turned curve."""
    waypoints = random_plan(seed)
    turn = Rotation.random(random_state=seed + 10)
    q = Rotation.from_quat(np.asarray(waypoints.rotation[:6]), scalar_first=True)
    turned = waypoints._replace(
        position=waypoints.position.at[:6].set(turn.apply(waypoints.position[:6])),
        rotation=waypoints.rotation.at[:6].set((turn * q).as_quat(scalar_first=True)),
    )
    a, b = build(waypoints, 12), build(turned, 12)
    np.testing.assert_allclose(turn.apply(a.position), b.position, atol=2e-6)
    np.testing.assert_allclose(a.progress, b.progress, atol=2e-5)


def test_progress_counts_arc_rotation_and_events():
    half_turn = np.array([[1.0, 0, 0, 0], [0.0, 0, 0, 1.0]])
    turning = build(plan([[0, 0, 0], [0, 0, 0]], half_turn), 12)
    np.testing.assert_allclose(turning.progress[-1], 0.1 * np.pi, atol=1e-5)
    waypoints = random_plan(2)
    curve = build(waypoints, 200)
    assert np.all(np.diff(curve.progress) >= 0)
    arc = np.linalg.norm(np.diff(curve.position, axis=0), axis=1).sum()
    q = Rotation.from_quat(np.asarray(waypoints.rotation[:6]), scalar_first=True)
    turn = (q[:-1].inv() * q[1:]).magnitude().sum()
    np.testing.assert_allclose(
        curve.progress[-1], arc + 0.1 * turn + 2 * EVENT_LENGTH, rtol=1e-4
    )


def test_gripper_steps_at_its_event_and_the_pose_stands_still_there():
    curve = build(plan([[0, 0, 0], [0.1, 0, 0], [0.3, 0, 0]], gripper=[1, 0, 0], room=2), 12)
    s = jnp.array([0.0999, 0.1, 0.1001, 0.1199, 0.1201, 0.32])
    position, _, gripper = sample(curve, s)
    np.testing.assert_array_equal(gripper, [1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(position[:, 0], [0.0999, 0.1, 0.1, 0.1, 0.1001, 0.3], atol=1e-4)
    goal, _, command, at = guidance_lib.next_goals(curve, jnp.asarray(0.05), 2)
    np.testing.assert_allclose(goal, [[0.1, 0, 0], [0.3, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(command, [0, 0])
    np.testing.assert_allclose(at, [0.1, curve.progress[-1]], atol=1e-6)
    goal, _, command, _ = guidance_lib.next_goals(curve, jnp.asarray(0.121), 1)
    np.testing.assert_allclose(goal, [[0.3, 0, 0]], atol=1e-6)
    assert command == 0


def test_gripper_events_are_goals_in_their_order():
    x = np.arange(6.0)[:, None] * [0.1, 0, 0]
    curve = build(plan(x, gripper=[1, 0, 0, 1, 0, 0]), 12)
    for progress, expected in ((0.0, [0.1, 0.3, 0.4, 0.5]), (0.25, [0.3, 0.4, 0.5, 0.5])):
        goals, _, command, _ = guidance_lib.next_goals(curve, jnp.asarray(progress), 4)
        np.testing.assert_allclose(goals[:, 0], expected, atol=1e-6)
        np.testing.assert_array_equal(command[:3], [0, 1, 0] if progress == 0 else [1, 0, 0])


@pytest.mark.parametrize(("turn", "stops"), [(180, True), (130, True), (110, False), (60, False)])
def test_a_turn_back_is_a_goal(turn, stops):
    """As at the end of a push: the hand stops where it turns round, and not at a bend."""
    after = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn)), 0])
    corner = np.array([0.2, 0, 0])
    curve = build(plan([[0, 0, 0], corner, corner + 0.1 * after], gripper=[0, 0, 0]), 12)
    goals, _, command, at = guidance_lib.next_goals(curve, jnp.asarray(0.05), 2)
    np.testing.assert_allclose(goals[0], corner if stops else corner + 0.1 * after, atol=1e-6)
    np.testing.assert_allclose(at[0], 0.2 if stops else curve.progress[-1], atol=5e-3)
    np.testing.assert_allclose(goals[1], corner + 0.1 * after, atol=1e-6)
    np.testing.assert_array_equal(command, 0)
    beyond, *_ = guidance_lib.next_goals(curve, jnp.asarray(0.22), 1)
    np.testing.assert_allclose(beyond[0], corner + 0.1 * after, atol=1e-6)


def test_a_slanted_event_keeps_the_approach_straight():
    """At a break the curve arrives along its chord: the last piece of a descent is not bent."""
    curve = build(plan([[0, 0, 0.1], [0.05, 0, 0], [0.2, 0, 0.1]], gripper=[1, 0, 0]), 12)
    approach = np.diff(curve.position[10:13], axis=0)
    np.testing.assert_allclose(
        approach / np.linalg.norm(approach, axis=1, keepdims=True),
        np.tile(np.array([0.05, 0, -0.1]) / np.hypot(0.05, 0.1), (2, 1)),
        atol=1e-3,
    )


def test_noise_has_the_stated_deviation_and_spares_the_current_pose():
    waypoints = plan(np.zeros((4, 3)))
    keys = jax.random.split(jax.random.key(0), 20_000)
    noisy = jax.vmap(lambda key: perturb_waypoints(key, waypoints, 0.03, 0.01, 0.1))(keys)
    np.testing.assert_array_equal(noisy.position[:, 0], 0)
    np.testing.assert_allclose(noisy.position[:, 1:].std(axis=0), np.hypot(0.03, 0.01), rtol=0.03)
    shared = np.mean(noisy.position[:, 1] * noisy.position[:, 2], axis=0)
    np.testing.assert_allclose(shared, 0.01**2, atol=3e-5)
    rotvec = Rotation.from_quat(
        np.asarray(noisy.rotation[:, 1], np.float64), scalar_first=True
    ).as_rotvec()
    np.testing.assert_allclose(rotvec.std(axis=0), 0.1, rtol=0.03)
