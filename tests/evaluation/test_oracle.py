"""The planner's errors: as large as told, drawn apart, and where they are said to be."""

import jax
import numpy as np
import pytest

from bridgeact_jax.errors import UsageError
from bridgeact_jax.geometry import rotations
from bridgeact_jax.planning.oracle import (
    EXACT,
    KINDS,
    PlannerErrors,
    calibration_offset,
    contact_waypoints,
    oracle_plan,
    wrong_kind,
)
from bridgeact_jax.sim.cameras import camera_poses
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.sim.tasks import TASKS

CAMERA = camera_poses()[0]
KEYS = jax.random.split(jax.random.key(0), 300)


@pytest.fixture(scope="module")
def truth():
    env = Environment("lift")
    env.reset(0, 0)
    return pad(env.waypoints())


def plans(truth, keys=KEYS, **errors):
    return [oracle_plan(key, truth, PlannerErrors(**errors), camera=CAMERA) for key in keys]


def moved(truth, keys=KEYS, **errors):
    """(keys, K, 3) metres by which each plan's waypoints lie beside the truth."""
    return np.stack([p.position for p in plans(truth, keys, **errors)]) - truth.position


def test_without_errors_the_plan_is_exact(truth):
    np.testing.assert_allclose(moved(truth, KEYS[:2]), 0, atol=1e-6)


def test_waypoint_and_rotation_noise_have_their_size(truth):
    found = plans(truth, waypoint_noise=0.03, rotation_noise=0.2)
    errors = np.stack([plan.position for plan in found]) - truth.position
    np.testing.assert_array_equal(errors[:, 0], 0)
    np.testing.assert_allclose(errors[:, 1:4].std(), 0.03, rtol=0.05)
    turned = np.stack([plan.rotation for plan in found])
    np.testing.assert_array_equal(turned[:, 0], np.broadcast_to(truth.rotation[0], (300, 4)))
    turn = rotations.log(
        rotations.multiply(turned[:, 1:4], rotations.conjugate(truth.rotation[1:4]))
    )
    np.testing.assert_allclose(np.std(turn), 0.2, rtol=0.05)


def test_depth_noise_is_one_shift_along_the_rays(truth):
    deep = moved(truth, depth_noise=0.1)[:, 1:4]
    ray = truth.position[1:4] - CAMERA[0]
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    along = np.sum(deep * ray, axis=-1)
    np.testing.assert_allclose(deep, along[..., None] * ray, atol=1e-5)
    np.testing.assert_allclose(along, along[:, :1].repeat(3, axis=1), atol=1e-5)
    np.testing.assert_allclose(along.std(), 0.1, rtol=0.15)


def test_calibration_is_one_offset_of_known_length(truth):
    errors = PlannerErrors(calibration=0.02)
    offsets = np.stack([calibration_offset(key, errors) for key in KEYS])
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), 0.02, rtol=1e-5)
    np.testing.assert_allclose(offsets.mean(axis=0), 0, atol=0.003)
    shifted = moved(truth, KEYS[:5], calibration=0.02)[:, 1:]
    expected = np.broadcast_to(offsets[:5, None], shifted.shape)
    np.testing.assert_allclose(shifted, expected, atol=1e-6)


def test_an_axis_leaves_the_draws_of_the_others_alone(truth):
    keys = KEYS[:3]
    noise = moved(truth, keys, waypoint_noise=0.03)
    both = moved(truth, keys, waypoint_noise=0.03, calibration=0.02)
    np.testing.assert_allclose(both - noise, moved(truth, keys, calibration=0.02), atol=1e-6)


@pytest.mark.parametrize("kind", ["off_object", "unreachable", "through_table"])
def test_one_waypoint_is_wrong_as_told(kind, truth):
    count = int(truth.count)
    chosen = set()
    for plan in plans(truth, KEYS[:40], wrong_waypoint=kind):
        wrong = np.flatnonzero(np.any(plan.position[:count] != truth.position[:count], axis=1))
        assert len(wrong) == 1 and wrong[0] > 0
        (index,) = wrong
        chosen.add(int(index))
        here, right = plan.position[index], truth.position[index]
        if kind == "off_object":
            assert 0.08 <= np.linalg.norm((here - right)[:2]) <= 0.12 and here[2] == right[2]
        elif kind == "unreachable":
            assert 0.9 <= np.linalg.norm(here) <= 1.2 + 1e-6
        else:
            assert -0.10 <= here[2] <= -0.05
        np.testing.assert_array_equal(plan.rotation, truth.rotation)
    assert chosen == ({2} if kind == "off_object" else {1, 2, 3})


def test_events_are_swapped_or_a_waypoint_early_or_late(truth):
    right = truth.gripper[:4] > 0.5  # open, open, closed, closed
    found = {
        tuple((plan.gripper[:4] > 0.5).tolist())
        for plan in plans(truth, KEYS[:40], wrong_waypoint="gripper_order")
    }
    swapped, early, late = (1, 0, 1, 1), (1, 0, 0, 0), (1, 1, 1, 0)
    assert right.tolist() == [1, 1, 0, 0] and found == {swapped, early, late}


def test_a_fist_is_only_swapped(truth):
    """Closed in the air for good: closing it a waypoint later would press as well."""
    fist = truth._replace(gripper=np.where(np.arange(len(truth.gripper)) < 1, 1.0, 0.0))
    for plan in plans(fist, KEYS[:10], wrong_waypoint="gripper_order"):
        assert np.all(plan.gripper[:4] == 1)


def test_poses_in_the_camera_frame_come_back_to_the_base_frame_with_its_pose(truth):
    (plan,) = plans(truth, KEYS[:1], wrong_waypoint="camera_frame")
    origin, matrix = CAMERA
    np.testing.assert_allclose(
        plan.position[1:] @ matrix.T + origin, truth.position[1:], atol=1e-5
    )
    np.testing.assert_allclose(
        matrix @ rotations.to_matrix(plan.rotation[1:]),
        rotations.to_matrix(truth.rotation[1:]), atol=1e-5,
    )
    np.testing.assert_array_equal(plan.position[0], truth.position[0])


def test_millimetres_are_a_thousandfold_and_nothing_else(truth):
    (plan,) = plans(truth, KEYS[:1], wrong_waypoint="millimetres")
    np.testing.assert_allclose(plan.position[1:], 1000 * truth.position[1:], rtol=1e-6)
    np.testing.assert_array_equal(plan.position[0], truth.position[0])
    np.testing.assert_array_equal(plan.rotation, truth.rotation)


def test_any_draws_all_kinds_alike_and_a_share_of_the_plans():
    kinds = [wrong_kind(key, PlannerErrors(wrong_waypoint="any")) for key in KEYS]
    counts = np.array([kinds.count(kind) for kind in KINDS])
    assert counts.sum() == len(KEYS) and np.all(np.abs(counts - 50) < 4 * np.sqrt(42))
    some = PlannerErrors(wrong_waypoint="any", wrong_share=0.2)
    drawn = [wrong_kind(key, some) for key in KEYS]
    assert abs(len(KEYS) - drawn.count("none") - 60) < 4 * np.sqrt(48)
    assert all(one in (other, "none") for one, other in zip(drawn, kinds, strict=True))


def test_another_attempt_is_drawn_anew_and_calibration_stays(truth):
    errors = PlannerErrors(wrong_waypoint="any", wrong_share=0.5)
    answers = [[wrong_kind(key, errors, attempt) for key in KEYS[:40]] for attempt in range(3)]
    assert answers[0] != answers[1] != answers[2]
    moved = [
        oracle_plan(
            KEYS[0], truth, PlannerErrors(calibration=0.02, waypoint_noise=noise), camera=CAMERA,
            attempt=attempt,
        ).position[1]
        for noise in (0.0, 0.03) for attempt in (0, 1)
    ]
    np.testing.assert_array_equal(moved[0], moved[1])
    assert np.linalg.norm(moved[2] - moved[3]) > 1e-3


@pytest.mark.parametrize("name", list(TASKS))
def test_contacts_are_found_in_the_plan_of_every_task(name):
    """Against what the task itself says: a step that is not in free space and does not let go."""
    env = Environment(name)
    env.reset(0, 0)
    plan = env.waypoints()
    steps = env.plan()
    opened = np.r_[plan.gripper[0], [step.gripper for step in steps]] > 0.5
    tight = {i + 1 for i, step in enumerate(steps) if not step.loose}
    letting_go = {i for i in range(1, len(opened)) if opened[i] and not opened[i - 1]}
    found = set(contact_waypoints(plan).tolist())
    assert found and found <= tight - letting_go


def test_values_without_sense_are_refused():
    for wrong in ({"waypoint_noise": -0.1}, {"calibration": float("nan")}):
        with pytest.raises(UsageError, match="0 or more"):
            PlannerErrors(**wrong)
    with pytest.raises(UsageError, match="share from 0 to 1"):
        PlannerErrors(wrong_share=1.5)
    with pytest.raises(UsageError, match="did you mean 'off_object'"):
        PlannerErrors(wrong_waypoint="of_object")
    assert EXACT == PlannerErrors()
