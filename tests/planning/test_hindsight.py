"""A demonstration told as an answer, which the parser of the remote planner reads back."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.datasets.keyframing import thinned
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning import planner_data
from bridgeact_jax.planning.anchors import anchors_of, places
from bridgeact_jax.planning.answers import parse_anchors, parse_plan
from bridgeact_jax.planning.conversations import FORMATS, conversation, record_text
from bridgeact_jax.planning.protocol import (
    Anchor,
    PlanRequest,
    View,
    plan_of_waypoints,
    waypoints_of,
)
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.tasks import TASKS
from tests.planning.seen import BOX, DOWN, TOP, depth_of_box, texts_of

HALF_STEP = 0.5e-3 * 3**0.5  # metres that rounding to millimetres moves a point by, at most
TURN = 2 * 0.5e-3 * 4**0.5 * 1.05  # radians likewise, of a quaternion rounded to three decimals


def assert_reads_back(waypoints, request, anchors):
    """Whatever the format, parsing the answers gives these waypoints, base frame, and anchors."""
    view = request.views[0]
    plan = plan_of_waypoints(waypoints, view.camera, anchors=anchors)
    about = conversation("a", "pictures/a.png", b"png", request, anchors, plan)
    (first, second), *others = [texts_of(form, record_text(form, about)) for form in FORMATS]
    assert all(other == [first, second] for other in others)
    read_anchors = parse_anchors(first, view.width, view.height)
    assert [(a.label, a.pixel) for a in read_anchors] == [(a.label, a.pixel) for a in anchors]
    read = waypoints_of(parse_plan(second, view), request)
    assert len(read.gripper) == int(waypoints.count)
    np.testing.assert_array_equal(read.gripper[1:], waypoints.gripper[1:])
    away = np.linalg.norm(read.position - waypoints.position, axis=1)
    assert away.max() <= HALF_STEP + 1e-6
    turns = [Rotation.from_quat(x.rotation, scalar_first=True) for x in (read, waypoints)]
    assert (turns[0] * turns[1].inv()).magnitude().max() <= TURN


@st.composite
def plans(draw):
    """Waypoints above the bare table, the first of which is where the tool is."""
    count = draw(st.integers(2, 22))
    reach = st.tuples(st.floats(0.3, 0.7), st.floats(-0.05, 0.25), st.floats(0.0, 0.35))
    quaternion = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
    position = np.array([draw(reach) for _ in range(count)], np.float32)
    rotation = np.array([draw(quaternion) for _ in range(count)])
    rotation /= np.linalg.norm(rotation, axis=1, keepdims=True)
    gripper = np.array([draw(st.sampled_from([0.0, 1.0])) for _ in range(count)], np.float32)
    return Waypoints(position, rotation.astype(np.float32), gripper, np.int32(count))


@settings(max_examples=25, deadline=None)
@given(waypoints=plans(), pixel=st.tuples(st.integers(2, 59), st.integers(0, 39)))
def test_whatever_is_written_reads_back(waypoints, pixel, request_):
    request = dataclasses.replace(
        request_, position=waypoints.position[0], rotation=waypoints.rotation[0]
    )
    anchor = Anchor("grasp", tuple(map(float, pixel)), (0.1, 0.0, 0.8))
    assert_reads_back(waypoints, request, (anchor,))


@pytest.mark.parametrize("task", TASKS)
def test_every_tasks_plan_reads_back(task, camera):
    env = Environment(task)
    env.reset(0, 1)
    view = View(picture=np.zeros((40, 60, 3), np.uint8), camera=camera)
    waypoints = env.waypoints()
    request = PlanRequest(
        (view,), env.instruction, waypoints.position[0], waypoints.rotation[0], 1.0
    )
    anchors, _ = anchors_of(waypoints, view)
    assert anchors
    assert_reads_back(waypoints, request, anchors[:10])
    assert [label for label, _ in places(waypoints)] == PLACES[task]


PLACES = {
    "reach": ["touch"], "lift": ["grasp"], "push_into_bay": ["touch"] * 2,
    "press_button": ["touch"], "pick_and_place": ["grasp", "place"],
    "stack_two": ["grasp", "place"], "open_drawer": ["grasp", "place"],
    "insert_peg": ["grasp", "place"], "stack_three": ["grasp", "place"] * 2,
    "put_in_drawer": ["grasp", "place"] * 3, "sort_three": ["grasp", "place"] * 3,
    "swap_two": ["grasp", "place"] * 3,
}


# ---- anchors ------------------------------------------------------------------------------------


def grasp_at(x, y, z):
    position = np.array([[0.45, 0.05, 0.3], [x, y, z + 0.1], [x, y, z], [x, y, z + 0.1]])
    return Waypoints(
        position.astype(np.float32), np.tile(DOWN, (4, 1)).astype(np.float32),
        np.float32([1, 1, 0, 0]), np.int32(4),
    )


def test_an_anchor_lies_on_the_surface_above_the_tool(view, camera):
    seen = View(view.picture, camera, depth_of_box(camera))
    (anchor,), left_out = anchors_of(grasp_at(*BOX, 0.025), seen)
    assert anchor.label == "grasp" and left_out == {}
    assert anchor.pixel == tuple(map(round, anchor.pixel))
    x, y, z = anchor.point  # the camera looks straight down, its x as the base's
    assert z == pytest.approx(0.8 - TOP, abs=1e-6)
    np.testing.assert_allclose([0.5 + x, 0.1 - y], BOX, atol=0.5 * z / 50 + 1e-6)


def test_an_anchor_that_is_not_seen_is_left_out_and_counted(view, camera):
    depth = depth_of_box(camera)
    assert anchors_of(grasp_at(1.5, 0.1, 0.02), View(view.picture, camera, depth))[1] == {
        "outside": 1
    }
    lamp = np.full_like(depth, 0.4)
    assert anchors_of(grasp_at(*BOX, 0.02), View(view.picture, camera, lamp))[1] == {"hidden": 1}
    floating = grasp_at(*BOX, 0.5)
    assert anchors_of(floating, View(view.picture, camera, depth))[1] == {"no surface": 1}
    (anchor,), _ = anchors_of(floating, View(view.picture, camera))  # no depth: the tool itself
    np.testing.assert_allclose(anchor.point, [0.02, -0.02, 0.3], atol=1e-6)


# ---- keyframes ----------------------------------------------------------------------------------


def zigzag():
    """An episode whose path turns sharply every fourth step; its gripper closes at the 30th."""
    corners = np.array([[0.4 + 0.02 * i, 0.06 * (i % 2), 0.2] for i in range(16)])
    position = np.concatenate([
        np.linspace(a, b, 4, endpoint=False) for a, b in zip(corners[:-1], corners[1:], strict=True)
    ]).astype(np.float32)
    gripper = (np.arange(60) < 30).astype(np.float32)
    rotation = np.tile(DOWN, (60, 1)).astype(np.float32)
    return Episode(np.arange(60) / 10, position, rotation, gripper, gripper, "go")


def test_keyframes_are_thinned_to_what_a_plan_can_hold(monkeypatch):
    episode = zigzag()
    rows = np.union1d(np.arange(0, 60, 2), [59])
    same, fits = thinned(episode, rows, 64)
    np.testing.assert_array_equal(same, rows)
    corners, miss = thinned(episode, rows, 18)  # every corner is kept, what lies between goes
    assert set(range(0, 60, 4)) <= set(corners.tolist()) and miss < 0.01
    fewer, worse = thinned(episode, rows, 8)
    assert len(fewer) == 8 and set(fewer) <= set(rows) and fits <= miss < worse < 0.1
    assert {0, 30, 59} <= set(fewer.tolist())
    assert len(thinned(episode, rows, 1)[0]) == 3

    monkeypatch.setattr(planner_data, "keyframes_of", lambda *_: [rows])
    waypoints, worst = planner_data.hindsight(episode)
    assert waypoints.count == 22 and worst < 0.01
    np.testing.assert_array_equal(waypoints.gripper, waypoints.position[:, 0] < 0.545)
    monkeypatch.setattr(planner_data, "keyframes_of", lambda *_: [None])
    with pytest.raises(planner_data.Unusable, match="more than 20 waypoints"):
        planner_data.hindsight(episode)
