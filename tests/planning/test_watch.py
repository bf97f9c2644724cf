"""The watch: what it notices and what it lets pass, in a toy scene with a hand that glides."""

import numpy as np
import pytest

from bridgeact_jax.planning.sweep import guidance_of
from bridgeact_jax.planning.target import Target
from bridgeact_jax.planning.watch import (
    AHEAD,
    EMPTY_STEPS,
    KINDS,
    SETTLED_STEPS,
    STALLED_STEPS,
    Seen,
    Watch,
)
from tests.planning.scene import SPOT, box, cloud, lift, move, plan

BOX = np.array([*SPOT, 0.02])
START = (0.5, -0.25, 0.3)
CALM = cloud(box(BOX))
PLAN = plan(*move(), start=START)
ALONG = guidance_of(PLAN)


def at(progress, **changed):
    """What is seen at a progress of `PLAN`; the hand opens and closes as planned."""
    row = min(np.searchsorted(ALONG.progress, progress), len(ALONG.progress) - 1)
    opened = ALONG.gripper[row]
    seen = Seen(
        ALONG.position[row], ALONG.rotation[row], 0.9 if opened else 0.5, opened, progress
    )
    return seen._replace(**changed)


def alarms(rows):
    """The kinds of the gravest alarms over control steps."""
    watch = Watch(PLAN, CALM)
    state, kinds = watch.start(), []
    for seen in rows:
        state, found = watch.step(state, seen)
        assert all(alarm.kind in KINDS and alarm.reason for alarm in found)
        kinds += [alarm.kind for alarm in found[:1]]
    return kinds


def glide(until=ALONG.progress[-1], **changed):
    return [at(p, **changed) for p in np.arange(0.0, until, 0.02)]


def carried(seen):
    """The cloud as the plan goes: the box where it was, in the hand, or put down."""
    done = seen.progress > ALONG.progress[-1] - 0.17
    here = BOX if seen.gripper > 0.5 else seen.position - [0, 0, 0.005]
    return seen._replace(cloud=cloud(box([*move()[4][:2], 0.02] if done else here)))


def test_a_plan_that_goes_well_raises_no_alarm():
    assert alarms(carried(seen) for seen in glide()) == []


def test_an_arm_that_stands_still_has_stalled_and_at_the_end_it_may():
    assert alarms([at(0.1)] * (STALLED_STEPS + 2)) == ["stalled"] * 2
    assert alarms([at(ALONG.progress[-1])] * 2 * STALLED_STEPS) == []


def test_an_empty_hand_has_lost_its_object():
    closed = np.flatnonzero(ALONG.gripper < 0.5)
    carrying = ALONG.progress[closed[len(closed) // 2]]
    steps = SETTLED_STEPS + EMPTY_STEPS
    full, empty = [[at(carrying, gripper_width=w)] * steps for w in (0.5, 0.01)]
    assert alarms(full) == []
    assert alarms(empty) == ["object_lost"]


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03, 0.05, 0.1])
def test_a_target_that_has_moved_is_noticed_from_some_centimetres_on(shift):
    there = cloud(box(BOX + np.array([-0.6, 0.8, 0.0]) * shift))
    kinds = set(alarms([at(0.1, cloud=there), at(0.12, cloud=there)]))
    assert kinds == ({"target_moved"} if shift > 0.025 else set())


def test_the_shift_that_is_found_is_the_true_one_and_hiding_is_no_shift():
    target = Target(BOX, box(BOX))
    for shift in ((0.04, -0.024), (-0.08, 0.0)):
        found, sure = target.shift(box(BOX + np.array([*shift, 0.0])))
        assert sure
        np.testing.assert_allclose(found, shift, atol=0.009)
    half = box(BOX)[: len(box(BOX)) // 3]
    assert target.shift(half) == (None, False)
    assert target.shift(np.zeros((0, 3))) == (None, False)


def test_a_post_on_the_way_ahead_is_noticed_and_elsewhere_it_is_not():
    """The first stretch goes along y at x = 0.5, from 0.3 m down to 0.125 m."""
    on_the_way = [0.5, -0.13, 0.125]
    beside, behind = [0.62, -0.13, 0.125], [0.5, -0.42, 0.125]
    half = (0.02, 0.02, 0.125)
    for place, expected in ((on_the_way, ["path_blocked"]), (beside, []), (behind, [])):
        seen = at(0.02, cloud=cloud(box(BOX), box(place, half, spacing=0.01)))
        assert alarms([seen]) == expected
    later = [at(0.02, cloud=cloud(box(BOX), box([0.4, -0.2, 0.25], (0.02, 0.02, 0.02))))]
    far = np.linalg.norm(np.array([0.4, -0.2, 0.25]) - ALONG.position[0])
    assert far < AHEAD and alarms(later) == []


def test_what_was_there_when_the_plan_was_made_surprises_nobody():
    post = box([0.5, -0.13, 0.125], (0.02, 0.02, 0.125), spacing=0.01)
    seen = np.concatenate([CALM, post])
    watch = Watch(PLAN, seen)
    assert watch.step(watch.start(), at(0.02, cloud=seen))[1] == ()


def test_a_step_changes_nothing_but_its_result():
    watch = Watch(plan(*lift(), start=START), CALM)
    start = watch.start()
    known = start.known.copy()
    first = watch.step(start, at(0.1, cloud=CALM))
    again = watch.step(start, at(0.1, cloud=CALM))
    np.testing.assert_array_equal(start.known, known)
    assert first[1] == again[1] == () and first[0][:5] == again[0][:5]
