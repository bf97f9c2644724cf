"""Executing chunks: rows at their times, steady between them, and holding when nothing comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from bridgeact_jax.serving.chunks import begin, command, holding, receive, stop
from bridgeact_jax.serving.limiter import PERIOD

POSE = np.float32([0.5, 0, 0.3, 0, 1, 0, 0, 1])


def same(pose, other, tolerance=0.0):
    """Whether two commands are, whatever the quaternions' signs."""
    sign = np.sign(pose[3:7] @ other[3:7])
    other = np.concatenate([other[:3], sign * other[3:7], other[7:]])
    return np.abs(pose - other).max() <= tolerance


def chunk(seed=0, rows=8):
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=(rows, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    gripper = rng.integers(0, 2, (rows, 1))
    return np.hstack([rng.normal(size=(rows, 3)), quaternion, gripper]).astype(np.float32)


def test_until_a_chunk_comes_the_pose_is_held():
    execution = begin(POSE)
    assert holding(execution, 0.0) and holding(execution, 1e9)
    assert (command(execution, 12.3) == POSE).all()


@given(st.floats(0, 1e6), st.integers(0, 7))
def test_a_row_is_commanded_at_its_time(start, row):
    execution = receive(begin(POSE), chunk(), start, start)
    assert same(command(execution, start + PERIOD * row), chunk()[row])


def test_after_the_last_row_it_is_held():
    execution = receive(begin(POSE), chunk(), 5.0, 5.02)
    assert not holding(execution, 5.7) and holding(execution, 5.71)
    assert same(command(execution, 60.0), chunk()[-1])


@given(st.floats(0, 0.75))
def test_from_one_moment_to_the_next_no_quaternion_changes_its_sign(since):
    execution = receive(begin(POSE), chunk(), 0.0, 0.0)
    before, after = command(execution, since)[3:7], command(execution, since + 0.01)[3:7]
    assert before @ after > 0


@given(st.floats(0, 0.7))
def test_between_rows_the_pose_is_interpolated(since):
    rows = chunk()
    execution = receive(begin(POSE), rows, 0.0, 0.0)
    times = PERIOD * np.arange(8)
    position = [np.interp(since, times, rows[:, axis]) for axis in range(3)]
    turn = Slerp(times, Rotation.from_quat(rows[:, [4, 5, 6, 3]]))(min(since, times[-1]))
    got = command(execution, since)
    assert got[:3] == pytest.approx(position, abs=1e-5)
    between = turn.inv() * Rotation.from_quat(got[[4, 5, 6, 3]])
    assert between.magnitude() < 1e-4
    assert got[7] in rows[:, 7]


def test_the_gripper_changes_with_the_row_that_says_so():
    rows = np.tile(POSE, (8, 1))
    rows[3:, 7] = 0
    execution = receive(begin(POSE), rows, 0.0, 0.0)
    assert [command(execution, t)[7] for t in (0.2, 0.29, 0.3, 0.31)] == [1, 1, 0, 0]


@given(st.floats(0.05, 0.5), st.floats(0, 0.25))
def test_a_blend_starts_at_the_old_path_and_ends_at_the_new_without_a_jump(blend, age):
    first = receive(begin(POSE), chunk(1), 0.0, 0.0)
    now = 0.25
    second = receive(first, chunk(2), now - age, now, blend=blend)
    alone = receive(begin(POSE), chunk(2), now - age, now)
    assert same(command(second, now)[:7], command(first, now)[:7], 1e-5)
    for later in (now + blend, now + blend + 0.13):
        assert same(command(second, later), command(alone, later), 1e-5)
    ahead = [command(second, now + blend * share)[:3] for share in np.linspace(0, 1, 50)]
    steepest = 2 * np.abs(np.diff(chunk(1)[:, :3], axis=0)).max() / PERIOD
    steepest += 2 * np.abs(np.diff(chunk(2)[:, :3], axis=0)).max() / PERIOD
    steepest += np.abs(chunk(2)[:, None, :3] - chunk(1)[None, :, :3]).max() / blend
    assert np.abs(np.diff(ahead, axis=0)).max() <= steepest * blend / 49 + 1e-5


def test_an_older_chunk_changes_nothing():
    execution = receive(begin(POSE), chunk(1), 1.0, 1.05)
    assert receive(execution, chunk(2), 0.9, 1.1) is execution


def test_after_a_stop_the_pose_stays_whatever_comes():
    execution = receive(begin(POSE), chunk(1), 0.0, 0.0)
    stopped = stop(execution, 0.2)
    assert stopped.stopped and holding(stopped, 0.2)
    assert same(command(receive(stopped, chunk(2), 1.0, 1.0), 1.3), chunk(1)[2])


@pytest.mark.parametrize(
    "actions", [np.zeros((8, 7)), np.zeros((0, 8)), np.zeros(8), np.full((8, 8), np.nan)]
)
def test_what_is_no_chunk_is_refused(actions):
    with pytest.raises(ValueError, match="a chunk"):
        receive(begin(POSE), actions, 0.0, 0.0)
