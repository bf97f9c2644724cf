"""A session says what the policy of the evaluation says, whatever the client's rhythm."""

import jax
import numpy as np
import pytest

from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.policies import ExpertPolicy
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.serving.answering import Job, answer
from bridgeact_jax.serving.engine import Inputs, key_data
from bridgeact_jax.serving.limiter import Limits
from bridgeact_jax.serving.metrics import Stopwatch
from bridgeact_jax.serving.observations import Poses, Request, Sight
from bridgeact_jax.serving.sessions import Session, Stale
from bridgeact_jax.sim.environment import CLOUD_POINTS, Observation
from bridgeact_jax.sim.follower import pad

DOWN = np.float32([0, 1, 0, 0])
HOME = np.float32([0.5, 0.0, 0.3])
FREE = Limits((-9, -9, -9), (9, 9, 9), 1e3, 1e5, 1e3)
PLAN = Poses(
    np.float32([[0.5, 0.05, 0.2], [0.5, 0.1, 0.1], [0.6, 0.1, 0.3]]),
    np.tile(DOWN, (3, 1)),
    np.float32([1, 0, 0]),
)
KEY = key_data(7)


def cloud(step=0):
    return np.random.default_rng(step).normal(HOME, 0.1, (CLOUD_POINTS, 3)).astype(np.float16)


def request(position=HOME, rotation=DOWN, **more):
    more = {"gripper_width": np.float32(0.9), "cloud": cloud(), **more}
    return Request("act", np.float32(position), np.float32(rotation), **more)


def new_session(engine, limits=FREE, execute=4):
    return Session(engine, limits, execute=execute, key=KEY)


def ask(engine, session, request, **how):
    watch = Stopwatch()
    (result,) = answer(engine, [Job(session, request, watch, **how)])
    if isinstance(result, Exception):
        raise result
    return result, "sample" in watch.seconds


@pytest.mark.slow
def test_observed_at_10_hz_it_says_what_the_policy_says(engine, checkpoint):
    rng = np.random.default_rng(0)
    plan = Waypoints(
        np.concatenate([HOME[None], PLAN.position]), np.concatenate([DOWN[None], PLAN.rotation]),
        np.concatenate([np.float32([1]), PLAN.gripper]), np.int32(4),
    )  # fmt: skip
    observation = Observation(0.0, HOME, DOWN, 0.9)
    keys = jax.random.wrap_key_data(KEY)[None]
    policy = ExpertPolicy(str(checkpoint), [pad(plan)], [observation], keys, use_cloud=True)
    session, sampled, grips = new_session(engine), [], []
    for step in range(30):
        targets = policy.targets([observation], lambda _, step=step: cloud(step))
        result, fresh = ask(
            engine, session,
            request(observation.position, observation.rotation, time=0.1 * step, plan=PLAN,
                    cloud=cloud(step), gripper_width=np.float32(observation.gripper_width)),
        )  # fmt: skip
        expected = np.concatenate([column[0].reshape(-1) for column in targets])
        assert result.actions[0] == pytest.approx(expected, abs=1e-6)
        assert not result.limited
        sampled.append(fresh)
        grips.append(expected[7])
        position = expected[:3] + rng.normal(0, 0.002, 3)
        observation = Observation(0.1 * (step + 1), position, expected[3:7], 0.4)
    assert len(set(grips)) == 2  # the gripper was used
    assert sum(sampled) < 30


def test_rows_do_not_depend_on_their_batch(engine):
    rows = []
    for seed in range(3):
        session = new_session(engine)
        session.observe(request(plan=PLAN))
        rows.append(session.inputs(request())._replace(key=key_data(seed)))
    together = engine.act(rows)
    others = engine.act([rows[2], *rows[1:]])
    for part in range(3):
        assert (together[1][part] == others[1][part]).all()
        for row, chunk in zip(rows, together, strict=True):
            assert chunk[part] == pytest.approx(engine.act([row])[0][part], abs=1e-4)
    assert not np.allclose(together[0][0], together[1][0], atol=1e-4)


def test_progress_is_the_same_whether_observed_at_10_or_5_hz(engine):
    path = HOME + np.linspace(0, 1, 17)[:, None] * np.float32([0.0, 0.05, -0.1])
    plan, progress = PLAN._replace(gripper=np.ones(3, np.float32)), []
    for stride in (1, 2, 4):
        session = new_session(engine)
        for step in range(0, 17, stride):
            result, _ = ask(engine, session, request(path[step], time=0.1 * step, plan=plan))
        progress.append(result.progress)
    assert progress[0] > 0.05 and progress == pytest.approx([progress[0]] * 3, abs=0.004)


def test_without_a_clock_each_observation_gets_a_new_chunk(engine):
    session = new_session(engine)
    fresh = [ask(engine, session, request(plan=PLAN))[1] for _ in range(5)]
    assert all(fresh)


def test_with_a_clock_the_rows_that_are_left_are_repeated(engine):
    session = new_session(engine)
    first, _ = ask(engine, session, request(plan=PLAN, time=0.0))
    again, fresh = ask(engine, session, request(plan=PLAN, time=0.02))
    assert not fresh and (again.actions == first.actions).all()
    if (first.actions[0, 7] == first.actions[:, 7]).all():
        later, fresh = ask(engine, session, request(plan=PLAN, time=0.2))
        assert not fresh and (later.actions[:6] == first.actions[2:]).all()
        assert (later.actions[6:] == first.actions[-1]).all()
    _, fresh = ask(engine, session, request(plan=PLAN, time=0.4))
    assert fresh


def test_rows_that_nobody_heard_were_not_executed(engine):
    session = new_session(engine)
    ask(engine, session, request(plan=PLAN, time=0.0))
    _, fresh = ask(engine, session, request(plan=PLAN, time=0.1), heard=False)
    assert fresh


def test_another_plan_replaces_and_the_same_goes_on(engine):
    session = new_session(engine)
    ask(engine, session, request(plan=PLAN, time=0.0))
    moved, fresh = ask(
        engine, session, request(HOME + [0, 0.02, -0.03], time=0.1, plan=PLAN, gripper=1.0)
    )
    assert moved.progress > 0.02 and not fresh
    other = PLAN._replace(position=PLAN.position + np.float32(0.01))
    replaced, fresh = ask(
        engine, session, request(HOME + [0, 0.02, -0.03], time=0.2, plan=other, gripper=1.0)
    )
    assert fresh and replaced.progress == 0


def test_without_a_plan_the_arm_is_held_or_an_error_says_what_to_send(engine):
    session = new_session(engine)
    with pytest.raises(UserError, match="no plan: send 'plan'"):
        ask(engine, session, request())
    held, fresh = ask(engine, session, request(), standing=True)
    assert not fresh and held.progress is None
    assert (held.actions == np.float32([*HOME, *DOWN, 1])).all()


def test_an_expert_that_sees_must_be_shown_something(engine):
    with pytest.raises(UserError, match="neither 'cloud' nor 'depth'"):
        ask(engine, new_session(engine), request(plan=PLAN, cloud=None))
    empty = np.zeros((0, 3), np.float32)
    result, _ = ask(engine, new_session(engine), request(plan=PLAN, cloud=empty))
    assert np.isfinite(result.actions).all()


def test_old_observations_are_refused_until_a_reset(engine):
    session = new_session(engine)
    ask(engine, session, request(plan=PLAN, time=5.0))
    with pytest.raises(Stale, match="went back from 5 to 4.9"):
        ask(engine, session, request(time=4.9))
    with pytest.raises(Stale, match="before it was sent"):
        ask(engine, session, request(time=5.1, sent=6.0), oldest=0.5)
    ask(engine, session, Request("reset", seed=3))
    ask(engine, session, request(plan=PLAN, time=0.0))


def test_a_seed_says_what_is_sampled(engine):
    session = new_session(engine)
    said = []
    for seed in (1, 2, 1):
        ask(engine, session, Request("reset", seed=seed))
        said.append(ask(engine, session, request(plan=PLAN))[0].actions)
    assert (said[0] == said[2]).all() and not (said[0] == said[1]).all()


def test_a_depth_picture_is_lifted_to_the_points_it_shows(engine):
    """A camera 0.5 m above the table looks straight down on a box beside the tool."""
    depth = np.full((60, 80), 0.5, np.float32)
    depth[20:30, 30:40] = 0.42
    T_base_camera = np.array([[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1.0]])
    sight = Sight(depth, np.array([100.0, 100.0, 39.5, 29.5]), T_base_camera, None)
    seen = request(HOME - [0, 0, 0.2], plan=PLAN, cloud=None, sight=sight)
    session = new_session(engine)
    session.observe(seen)
    points = session.inputs(seen).cloud
    assert points.shape == (CLOUD_POINTS, 3) and np.isfinite(points).all()
    on_box = np.isclose(points[:, 2], 0.08, atol=1e-5)
    assert np.isclose(points[~on_box, 2], 0.0, atol=1e-5).all()
    assert 0.7 <= on_box.mean() <= 0.8  # the table is bounded
    assert np.ptp(points[on_box, 0]) == pytest.approx(9 * 0.42 / 100, abs=1e-5)
    assert points[on_box, 1].mean() == pytest.approx(5 * 0.42 / 100, abs=2e-3)


def test_of_a_large_cloud_the_points_near_the_tool_are_taken(engine):
    points = np.random.default_rng(0).uniform(-3, 3, (50_000, 3)).astype(np.float32)
    points[:3000] = HOME + np.random.default_rng(1).normal(0, 0.05, (3000, 3))
    session = new_session(engine)
    session.observe(request(plan=PLAN))
    inputs: Inputs = session.inputs(request(cloud=points))
    assert (np.linalg.norm(inputs.cloud - HOME, axis=1) <= 0.5).all()
    assert len(np.unique(inputs.cloud, axis=0)) == CLOUD_POINTS


def test_one_clients_mistake_is_its_own(engine):
    good, bad = new_session(engine), new_session(engine)
    jobs = [
        Job(bad, request(plan=PLAN, cloud=None), Stopwatch()),
        Job(good, request(plan=PLAN), Stopwatch()),
        Job(bad, Request("act"), Stopwatch()),
    ]
    results = answer(engine, jobs)
    assert isinstance(results[0], UserError) and isinstance(results[2], Exception)
    assert np.isfinite(results[1].actions).all()


def test_a_held_arm_that_sags_is_held_where_it_was_and_one_that_is_pushed_where_it_is(engine):
    session = new_session(engine)
    for step in range(30):
        sagging = HOME - np.float32([0, 0, 0.001 * step])
        result, _ = ask(engine, session, request(sagging, time=0.1 * step), standing=True)
        np.testing.assert_allclose(result.actions[:, :3], np.tile(HOME, (8, 1)), atol=1e-6)
    pushed = HOME + np.float32([0.2, 0, 0])
    result, _ = ask(engine, session, request(pushed, time=3.0), standing=True)
    np.testing.assert_allclose(result.actions[:, :3], np.tile(pushed, (8, 1)), atol=1e-6)


@pytest.mark.parametrize("hz", [5.0, 7.0, 10.0, 15.0, 30.0])
def test_control_steps_add_up_to_the_time_that_passed(engine, hz):
    session = new_session(engine)
    ask(engine, session, request(time=0.0, plan=PLAN))
    for number in range(1, 22):
        ask(engine, session, request(time=number / hz, plan=PLAN))
    assert abs(session._step - 21 / hz / 0.1) <= 0.5 + 1e-6


def test_velocity_is_of_the_time_between_observations(engine):
    """At the same speed the limiter has the same to do, however often the arm is observed."""
    for seconds in (0.1, 0.4):
        session = new_session(engine)
        for number in range(3):
            position = HOME + np.float32([0.15 * seconds * number, 0, 0])
            ask(engine, session, request(position, time=seconds * number), standing=True)
        np.testing.assert_allclose(session._velocity, [0.15, 0, 0], atol=1e-4)


def test_two_clocks_are_told_apart(engine):
    session = new_session(engine)
    with pytest.raises(Stale, match="must be of one clock"):
        session.check_time(request(time=1.7e9, sent=12.0), 0.5)
