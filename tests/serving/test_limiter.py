"""The limiter: whatever comes in, what goes out keeps every limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from bridgeact_jax.serving.limiter import PERIOD, Limits, Start, hold, limit

LIMITS = Limits((0.15, -0.55, 0.0), (0.85, 0.55, 0.75), 0.5, 4.0, 2.0)
LOW, HIGH = np.array(LIMITS.low), np.array(LIMITS.high)
REST = Start(np.array([0.5, 0.0, 0.3]), np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(3), 1.0)

wild = st.one_of(
    st.floats(width=32),
    st.floats(-1, 1, width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1e-30]),
)
chunks = hnp.arrays(np.float32, st.tuples(st.integers(1, 16), st.just(8)), elements=wild)
near = st.builds(  # small motions, of which some break a limit
    lambda steps: REST_ROW + np.cumsum(steps, axis=0, dtype=np.float32),
    hnp.arrays(np.float32, (8, 8), elements=st.floats(-0.0625, 0.0625, width=32)),
)
REST_ROW = np.float32([0.5, 0, 0.3, 0, 1, 0, 0, 1])
units = hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 0.1
)
starts = st.builds(
    Start,
    hnp.arrays(np.float64, 3, elements=st.floats(-1.5, 1.5)),
    units.map(lambda q: q / np.linalg.norm(q)),
    hnp.arrays(np.float64, 3, elements=st.floats(-3, 3)),
    st.floats(0, 1),
)
inside = st.builds(  # slow enough to stop wherever in the workspace it is
    lambda share, velocity: REST._replace(
        position=LOW + 0.05 + share * (HIGH - LOW - 0.1), velocity=velocity
    ),
    hnp.arrays(np.float64, 3, elements=st.floats(0, 1)),
    hnp.arrays(np.float64, 3, elements=st.floats(-0.28, 0.28)),
)


def turns(start, rows):
    """Radians from row to row, by SciPy."""
    q = np.vstack([start.rotation, rows[:, 3:7]])[:, [1, 2, 3, 0]]
    turn = Rotation.from_quat(q)
    return (turn[:-1].inv() * turn[1:]).magnitude()


def assert_kept(start, rows, tolerance=2e-5):
    assert rows.dtype == np.float32 and np.isfinite(rows).all()
    path = np.vstack([start.position, rows[:, :3]]).astype(float)
    beyond = np.maximum(np.maximum(LOW - path, path - HIGH), 0)
    assert (np.diff(beyond, axis=0) < 2e-6).all()  # inside, or never farther outside
    velocity = np.diff(path, axis=0) / PERIOD
    assert (np.linalg.norm(velocity, axis=1) <= LIMITS.speed + tolerance).all()
    change = np.linalg.norm(np.diff(velocity, axis=0), axis=1)
    assert (change <= LIMITS.acceleration * PERIOD + 2 * tolerance).all()
    assert (turns(start, rows) <= LIMITS.rotation_rate * PERIOD + tolerance).all()
    assert (np.abs(np.linalg.norm(rows[:, 3:7], axis=1) - 1) <= 2e-3).all()
    assert ((rows[:, 7] >= 0) & (rows[:, 7] <= 1)).all()


@settings(max_examples=150)
@given(starts, chunks | near)
def test_whatever_comes_in_what_goes_out_keeps_every_limit(start, chunk):
    rows, broken = limit(LIMITS, start, chunk)
    assert_kept(start, rows)
    assert rows is chunk or broken
    again, nothing = limit(LIMITS, start, rows)
    assert again is rows and not nothing


@given(inside, chunks | near)
def test_an_arm_that_can_stop_is_never_accelerated_beyond_the_limit(start, chunk):
    rows, _ = limit(LIMITS, start, chunk)
    first = (rows[0, :3] - start.position) / PERIOD
    assert np.linalg.norm(first - start.velocity) <= LIMITS.acceleration * PERIOD + 4e-5


@given(st.lists(hnp.arrays(np.float32, (8, 8), elements=wild), min_size=2, max_size=5))
def test_chunk_after_chunk_the_limits_hold(chunks):
    """Each chunk starts where the arm is after four rows of the one before."""
    start, travelled = REST, []
    for chunk in chunks:
        rows = limit(LIMITS, start, chunk)[0][:4]
        travelled.append(rows)
        position = np.vstack([start.position, rows[:, :3]]).astype(float)
        start = Start(
            position[-1], rows[-1, 3:7].astype(float), (position[-1] - position[-2]) / PERIOD,
            float(rows[-1, 7]),
        )  # fmt: skip
    assert_kept(REST, np.concatenate(travelled), 4e-5)


@given(
    hnp.arrays(np.float64, (8, 3), elements=st.floats(-0.11, 0.11)),
    hnp.arrays(np.float64, (8, 3), elements=st.floats(-1, 1)),
)
def test_a_chunk_within_the_limits_passes_unchanged_to_the_bit(velocity, rate):
    position = REST.position + np.cumsum(velocity * PERIOD, axis=0)
    turn = Rotation.from_quat([1, 0, 0, 0])
    quaternions = []
    for step in rate * PERIOD:
        turn = Rotation.from_rotvec(step) * turn
        quaternions.append(turn.as_quat()[[3, 0, 1, 2]])
    chunk = np.column_stack([position, quaternions, np.ones(8)]).astype(np.float32)
    before = chunk.copy()
    rows, broken = limit(LIMITS, REST, chunk)
    assert not broken and rows.tobytes() == before.tobytes()


BROKEN = {
    "workspace": lambda chunk: chunk[:, :3].__setitem__(slice(None), [0.5, 0.0, -0.1]),
    "speed": lambda chunk: chunk[3:, 0].__iadd__(np.float32(0.2)),
    "acceleration": lambda chunk: chunk[1::2, 0].__iadd__(np.float32(0.045)),
    "rotation_rate": lambda chunk: chunk[4:, 3:7].__setitem__(slice(None), [0, 0, 1, 0]),
    "rotation": lambda chunk: chunk[:, 3:7].__imul__(np.float32(2)),
    "not_finite": lambda chunk: chunk[2, :2].__setitem__(slice(None), np.nan),
    "gripper": lambda chunk: chunk[5:, 7].__setitem__(slice(None), 1.5),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_an_intervention_says_why(reason):
    chunk = hold(REST, 8)
    BROKEN[reason](chunk)
    rows, broken = limit(LIMITS, REST, chunk)
    assert broken[reason] > 0
    assert_kept(REST, rows)


def test_holding_is_within_the_limits_and_braking_is_at_the_limit():
    rows, broken = limit(LIMITS, REST, hold(REST, 8))
    assert not broken and (rows == REST_ROW).all()
    moving = REST._replace(velocity=np.array([0.5, 0.0, 0.0]))
    rows, broken = limit(LIMITS, moving, hold(moving, 8))
    assert broken == {"acceleration": 1}  # from 0.5 to 0 m/s at once: 5 m/s^2
    assert rows[0, 0] == pytest.approx(0.5 + 0.1 * 0.1)


def test_an_arm_driven_at_a_wall_stops_before_it():
    chunk = np.tile(REST_ROW, (16, 1))
    chunk[:, 0] = 2.0
    rows, broken = limit(LIMITS, REST, chunk)
    assert {"workspace", "speed", "acceleration"} == broken.keys()
    assert rows[:, 0].max() <= LIMITS.high[0] + 1e-6
    assert rows[-1, 0] == pytest.approx(LIMITS.high[0], abs=0.01)


def test_an_arm_outside_the_workspace_may_come_back_and_go_no_farther():
    start = REST._replace(position=np.array([0.5, 0.0, -0.02]))
    down, up = hold(start, 8), hold(start, 8)
    down[:, 2], up[:, 2] = -0.1, 0.1
    assert limit(LIMITS, start, down)[0][:, 2].min() >= -0.02 - 1e-6
    assert limit(LIMITS, start, up)[0][-1, 2] > 0.05
