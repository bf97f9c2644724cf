"""The guard and the way around: closed-form scenes, and the exact plans of the simulator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.collisions import swept
from bridgeact_jax.planning.contacts import Contacts
from bridgeact_jax.planning.detour import detour
from bridgeact_jax.planning.guard import Guard, Limits
from bridgeact_jax.planning.sweep import curve_of, guidance_of, things_of, unpadded
from bridgeact_jax.planning.verdicts import KINDS
from bridgeact_jax.sim import kinematics
from bridgeact_jax.sim.environment import SAFE_HIGH, SAFE_LOW, Environment
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.sim.tasks import TASKS
from tests.planning.scene import CARD, GUARD, LIMITS, SPOT, box, cloud, lift, move, plan

X, Y = SPOT


def kinds(waypoints, points=None, **how):
    refusals = GUARD.judge(waypoints, cloud() if points is None else points, **how)
    assert all(x.kind in KINDS and x.reason for x in refusals)
    return {x.kind for x in refusals}


@pytest.mark.parametrize(
    "steps",
    [
        lift(),
        lift(x=X + 0.03, y=Y - 0.03),  # coarse, but the expert's to correct
        move(),
        [(X, Y, 0.2, 1.0), (X, Y, 0.07, 1.0)],  # hovers above the box
        [(X, Y, 0.15, 0.0), (X, Y, 0.03, 0.0)],  # presses with a fist
        [(X, Y - 0.07, 0.12, 0.0), (X, Y - 0.07, 0.01, 0.0), (X, Y + 0.1, 0.01, 0.0)],  # pushes
    ],
)
def test_good_plans_pass(steps):
    assert not kinds(plan(*steps))


@pytest.mark.parametrize(
    "kind, steps, says",
    [
        ("off_object", lift(x=X + 0.12), "waypoint 2 closes the gripper 10 cm from anything"),
        ("off_object", [(X, Y + 0.2, 0.2, 1.0), (X, Y + 0.2, 0.1, 1.0)], "never comes near"),
        ("off_object", [lift()[0], (X - 0.1, Y, 0.025, 0.0), lift()[2]], "waypoint 2"),
        ("workspace", [*lift()[:1], (X, Y, -0.07, 0.0)], "7 cm below the top of the table"),
        ("workspace", [(1.1, 0.1, 0.2, 1.0)], "outside"),
        ("workspace", [(500.0, 100.0, 25.0, 0.0)], "millimetres"),
        ("leap", [(0.25, -0.5, 0.1, 1.0), (0.8, 0.5, 0.1, 1.0)], "waypoint 2"),
        ("gripper_order", [(X, Y, 0.125, 0.0), *lift()[1:]], "lifts nothing"),
        ("gripper_order", [s[:3] + (1 - s[3],) for s in move()], "before the hand comes down"),
        ("gripper_order", [s[:3] + (1.0,) for s in lift()], "stays open"),
        ("gripper_order", [*move()[:3], (*CARD, 0.2, 1.0), (*CARD, 0.03, 1.0)], "waypoint 4 opens"),
        ("not_finite", [(X, Y, np.nan, 1.0)], "waypoint 1"),
        ("not_finite", [], "no waypoint"),
    ],
)
def test_wrong_plans_are_refused_with_a_reason(kind, steps, says):
    refusals = GUARD.judge(plan(*steps), cloud())
    assert any(x.kind == kind and says in x.reason for x in refusals), refusals


def test_a_tool_upside_down_and_no_rotation_at_all_are_refused():
    good = plan(*lift())
    up, zero = good.rotation.copy(), good.rotation.copy()
    up[2], zero[2] = (1.0, 0.0, 0.0, 0.0), 0.0
    assert kinds(good._replace(rotation=up)) == {"rotation"}
    assert kinds(good._replace(rotation=zero)) == {"rotation"}


def test_a_wall_in_the_way_is_a_collision_and_the_detour_is_none():
    wall = box([0.5, 0.0, 0.2], half=(0.15, 0.01, 0.2))
    points = cloud(box([*SPOT, 0.02]), wall)
    straight = plan((X, Y + 0.1, 0.15, 1.0), *lift(y=Y + 0.1), start=(0.5, -0.15, 0.2))
    points[:, 1] += np.where(np.isclose(points[:, 1], Y, atol=0.021), 0.1, 0.0)
    assert "collision" in kinds(straight, points)
    around = detour(straight, points, GUARD)
    assert around is not None and int(around.count) > int(straight.count)
    assert "collision" not in kinds(around, points)
    np.testing.assert_array_equal(around.position[-3:], straight.position[-3:])


def test_a_detour_leaves_free_plans_alone_and_finds_none_in_a_cage():
    free = plan(*lift())
    np.testing.assert_array_equal(detour(free, cloud(), GUARD).position, free.position)
    cage = [box([X, Y + side * 0.09, 0.3], half=(0.3, 0.01, 0.3), spacing=0.01) for side in (1, -1)]
    cage += [box([X, Y, 0.35], half=(0.3, 0.1, 0.01), spacing=0.01)]
    assert detour(free, cloud(box([*SPOT, 0.02]), *cage), GUARD) is None


def test_an_arm_that_falls_short_or_would_have_to_race_is_named():
    short = Guard(LIMITS, lambda p, r: (np.where(p[:, 2] < 0.1, 0.08, 0.0), np.zeros((len(p), 6))))
    (refusal,) = short.judge(plan(*lift()), cloud())
    assert refusal.kind == "unreachable" and "8 cm short" in refusal.reason
    fast = Guard(LIMITS, lambda p, r: (np.zeros(len(p)), np.arange(len(p))[:, None] * 9.0))
    (refusal,) = fast.judge(plan(*lift()), cloud())
    assert refusal.kind == "speed"


def test_what_is_held_is_no_obstacle_and_may_be_put_down():
    start = (0.5, 0.1, 0.3)
    points = cloud(box([0.5, 0.1, 0.295]))
    rest = [(*CARD, 0.2, 0.0), (*CARD, 0.03, 1.0), (*CARD, 0.2, 1.0)]
    carrying = plan(*rest, gripper=0.0, start=start)
    assert not kinds(carrying, points, held=True)
    dropped = plan((*CARD, 0.2, 1.0), (*CARD, 0.03, 1.0), gripper=0.0, start=start)
    assert kinds(dropped, points, held=True) == {"gripper_order"}


inside = st.tuples(st.floats(0.25, 0.75), st.floats(0.0, 0.45), st.floats(0.02, 0.65))


@settings(max_examples=20)
@given(st.lists(inside, min_size=1, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_far_from_all_points_nothing_collides(places, opened):
    steps = [(*place, float(o)) for place, o in zip(places, opened, strict=False)]
    far = cloud(box([0.5, -0.95, 0.1]))
    assert "collision" not in kinds(plan(*steps, start=(0.5, 0.2, 0.4)), far)


@settings(max_examples=20)
@given(
    st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4), max_size=8),
    st.booleans(),
)
def test_any_numbers_get_a_verdict(steps, held):
    refusals = GUARD.judge(plan(*steps), cloud(), held=held)
    assert all(x.kind in KINDS for x in refusals)


def test_no_points_and_points_that_are_not_finite_are_no_scene():
    for points in (np.zeros((0, 3)), np.full((5, 3), np.nan)):
        assert "off_object" in kinds(plan(*lift()), points)


def test_what_a_hand_meets_is_what_a_naive_loop_finds():
    """One straight way down beside a column of points, against boxes written out."""
    way = plan((0.5, 0.0, 0.2, 1.0), start=(0.5, 0.0, 0.5))
    column = np.array([[0.5, y, 0.3] for y in (0.0, 0.05, 0.09, 0.13, 0.3)])
    curve = curve_of(guidance_of(way))
    contacts = Contacts(unpadded(way), things_of(column, 0.0))
    met = swept(curve, contacts, column, 0.01).any(axis=0)
    # The tool passes each point; fingers reach 6.4 cm, the palm 10.2 cm to the side, and 1 more.
    np.testing.assert_array_equal(met, [True, True, True, False, False])


@pytest.mark.parametrize("task", list(TASKS))
def test_the_exact_plan_of_every_task_passes(task):
    env = Environment(task)
    env.reset(3, 0)
    limits = Limits(SAFE_LOW, SAFE_HIGH, env.arm.max_joint_speed)
    guard = Guard(limits, kinematics.shared("panda").follow)
    truth = pad(env.waypoints())
    assert guard.judge(truth, env.cloud()) == ()
    scaled = Waypoints(1000 * truth.position, *truth[1:])
    assert {x.kind for x in guard.judge(scaled, env.cloud())} & {"workspace", "leap"}
