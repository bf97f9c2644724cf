"""Plans to the base frame and back, their checks, and their JSON."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgeact_jax.geometry.cameras import project
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.protocol import (
    MAX_WAYPOINTS,
    Anchor,
    Plan,
    PlannedPose,
    PlanningError,
    PlanRequest,
    View,
    in_camera,
    plan_of_waypoints,
    waypoints_of,
)
from bridgeact_jax.planning.schemas import PLAN
from bridgeact_jax.planning.wire import plan_from_json, plan_to_json

IDENTITY = (1.0, 0.0, 0.0, 0.0)
POSE = PlannedPose((0.1, 0.2, 0.7), 1.0, IDENTITY)


def random_waypoints(seed, count, padding=0):
    rng = np.random.default_rng(seed)
    total = count + padding
    return Waypoints(
        rng.uniform(-0.5, 0.5, (total, 3)).astype(np.float32),
        Rotation.random(total, random_state=seed).as_quat(scalar_first=True).astype(np.float32),
        rng.integers(0, 2, total).astype(np.float32),
        np.asarray(count),
    )


def same_rotation(a, b, tolerance=1e-6):
    return np.all(np.abs(np.abs(np.sum(np.asarray(a) * np.asarray(b), axis=-1)) - 1) < tolerance)


@given(st.integers(0, 10**6), st.integers(2, MAX_WAYPOINTS + 2))
@settings(max_examples=20)
def test_a_plan_of_waypoints_comes_back_as_they_were(camera, request_, seed, count):
    waypoints = random_waypoints(seed, count, padding=2)
    back = waypoints_of(plan_of_waypoints(waypoints, camera), request_)
    assert int(back.count) == count == len(back.position)
    np.testing.assert_allclose(back.position[1:], waypoints.position[1:count], atol=2e-6)
    assert same_rotation(back.rotation[1:], waypoints.rotation[1:count])
    np.testing.assert_array_equal(back.gripper[1:], waypoints.gripper[1:count])
    np.testing.assert_allclose(back.position[0], request_.position, atol=1e-6)
    np.testing.assert_allclose(back.rotation[0], request_.rotation, atol=1e-6)
    assert back.gripper[0] == request_.gripper
    assert all(column.dtype == np.float32 for column in back[:3])


def test_frames_are_scipys(camera):
    """T_camera_base from SciPy's rotations in float64; its pixels are those of `project`."""
    waypoints = random_waypoints(5, 4)
    position, rotation = in_camera(camera, waypoints.position, waypoints.rotation)
    turn = Rotation.from_quat(camera.T_base_camera.rotation, scalar_first=True).inv()
    expected = turn.apply(waypoints.position - camera.T_base_camera.position)
    np.testing.assert_allclose(position, expected, atol=1e-6)
    turned = turn * Rotation.from_quat(waypoints.rotation, scalar_first=True)
    assert same_rotation(rotation, turned.as_quat(scalar_first=True))
    pixels, depth = project(camera, waypoints.position)
    np.testing.assert_allclose(depth, position[:, 2], atol=1e-6)
    u = camera.fx * position[:, 0] / position[:, 2] + camera.cx
    np.testing.assert_allclose(pixels[:, 0], u, rtol=1e-4)


def turned_about_z(angle):
    return (np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2))


def test_missing_rotations_go_evenly_by_length(camera, view):
    """A straight way of 0.1 + 0.3 m and a turn of 1 rad: a quarter of it at the waypoint."""
    tool = in_base(camera, (0.0, 0.0, 0.4), IDENTITY)
    request = PlanRequest((view,), "go", tool[0], tool[1], 1.0)
    plan = Plan(
        (PlannedPose((0.0, 0.0, 0.5), 1.0),),
        PlannedPose((0.0, 0.0, 0.8), 1.0, turned_about_z(1.0)),
    )
    _, rotation = in_camera(camera, *waypoints_of(plan, request)[:2])
    assert same_rotation(rotation[1], turned_about_z(0.25))
    given_one = dataclasses.replace(
        plan,
        waypoints=(
            PlannedPose((0.0, 0.0, 0.5), 1.0, turned_about_z(-0.6)),
            PlannedPose((0.0, 0.0, 0.6), 1.0),
            PlannedPose((0.0, 0.0, 0.7), 1.0),
        ),
    )
    _, rotation = in_camera(camera, *waypoints_of(given_one, request)[:2])
    assert same_rotation(rotation[2], turned_about_z(-0.6 + 1.6 / 3))
    assert same_rotation(rotation[3], turned_about_z(-0.6 + 3.2 / 3))


def test_missing_rotations_where_nothing_moves(camera, view):
    tool = in_base(camera, (0.0, 0.0, 0.4), IDENTITY)
    request = PlanRequest((view,), "turn", tool[0], tool[1], 1.0)
    still = (0.0, 0.0, 0.4)
    plan = Plan((PlannedPose(still, 1.0),), PlannedPose(still, 1.0, turned_about_z(1.0)))
    _, rotation = in_camera(camera, *waypoints_of(plan, request)[:2])
    assert np.isfinite(rotation).all()
    np.testing.assert_allclose(np.linalg.norm(rotation, axis=1), 1, atol=1e-6)


def in_base(camera, position, rotation):
    T = camera.T_base_camera
    turn = Rotation.from_quat(T.rotation, scalar_first=True)
    turned = turn * Rotation.from_quat(rotation, scalar_first=True)
    return turn.apply(position) + T.position, turned.as_quat(scalar_first=True)


def test_a_rounded_quaternion_is_normalised():
    rounded = PlannedPose((0.0, 0.0, 0.5), 1.0, (0.707, 0.0, 0.707, 0.0)).rotation
    np.testing.assert_allclose(rounded, np.array([1, 0, 1, 0]) / np.sqrt(2), atol=1e-12)


PICTURE = np.zeros((4, 6, 3), np.uint8)
NONSENSE = {
    "position": (lambda: PlannedPose((0.0, np.nan, 1.0), 1.0), "3 finite numbers"),
    "size": (lambda: PlannedPose((0.0, 1.0), 1.0), "3 finite numbers"),
    "gripper": (lambda: PlannedPose((0.0, 0.0, 1.0), 1.5), "gripper is 1.5.*from 0 to 1"),
    "gripper NaN": (lambda: PlannedPose((0.0, 0.0, 1.0), np.nan), "from 0 to 1"),
    "rotation": (lambda: PlannedPose((0.0, 0.0, 1.0), 1.0, (0, 0, 0, 0)), "unit quaternion"),
    "target": (lambda: Plan((), PlannedPose((0.0, 0.0, 1.0), 1.0)), "target has no rotation"),
    "count": (lambda: Plan((POSE,) * 21, POSE), "21 waypoints: must be at most 20"),
    "confidence": (lambda: Plan((POSE,), POSE, confidence=80), "confidence is 80"),
    "pixel": (lambda: Anchor("grasp", (np.inf, 2)), "pixel of anchor 'grasp'"),
    "picture": (lambda: View(PICTURE[0], None), r"\(6, 3\) uint8: must be \(height, width, 3\)"),
    "floats": (lambda: View(PICTURE / 255, None), "float64: must be .* uint8"),
    "depth": (lambda: View(PICTURE, None, np.zeros((6, 4))), r"must be \(4, 6\)"),
    "no view": (lambda: PlanRequest((), "x", np.zeros(3), IDENTITY, 1.0), "no view"),
    "no words": (
        lambda: PlanRequest((View(PICTURE, None),), " ", np.zeros(3), IDENTITY, 1.0),
        "no instruction",
    ),
    "tool": (
        lambda: PlanRequest((View(PICTURE, None),), "x", np.zeros(3), (0, 0, 0, 2), 1.0),
        "the tool's rotation has norm 2",
    ),
}


@pytest.mark.parametrize("make, message", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_cannot_be_made(make, message):
    with pytest.raises(PlanningError, match=message):
        make()


FULL = Plan(
    (POSE, PlannedPose((0.1, 0.2, 0.9), 0.25)),
    PlannedPose((0.3, -0.2, 0.5), 0.0, (0.6, 0.8, 0.0, 0.0)),
    (Anchor("grasp", (3.0, 4.0)), Anchor("place", (5.0, 6.5), (0.1, 0.2, 0.3))),
    "Zuerst \u00fcber den W\u00fcrfel.",
    0.5,
    {"seconds": 1.5, "queries": 2},
)


@pytest.mark.parametrize("plan", [FULL, Plan((), POSE)], ids=["full", "bare"])
def test_a_plan_through_json(plan):
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "null": type(None)}


def conforms(value, schema):
    """Whether a JSON value is as a schema says, in those words of JSON Schema that are used."""
    if "anyOf" in schema:
        return any(conforms(value, choice) for choice in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if not isinstance(value, TYPES[schema["type"]]):
        return False
    if schema["type"] == "object":
        known = schema.get("properties", {})
        other = schema["additionalProperties"]
        return set(schema.get("required", ())) <= set(value) and all(
            conforms(child, known.get(name, other)) if name in known or other else False
            for name, child in value.items()
        )
    if schema["type"] == "array":
        fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return fits and all(conforms(child, schema["items"]) for child in value)
    if schema["type"] == "number":
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return True


@pytest.mark.parametrize("plan", [FULL, Plan((), POSE)], ids=["full", "bare"])
def test_json_of_a_plan_is_as_its_schema_says(plan):
    written = json.loads(json.dumps(plan_to_json(plan)))
    assert conforms(written, PLAN)
    for field in PLAN["required"]:
        assert not conforms({name: written[name] for name in written if name != field}, PLAN)
    assert not conforms({**written, "more": 1}, PLAN)


def _leaves(value, path=()):
    """The paths of all entries of a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, child in entries:
        yield (*path, name)
        if isinstance(child, dict | list):
            yield from _leaves(child, (*path, name))


@pytest.mark.parametrize("wrong", ["missing", "text", "NaN", "list"])
def test_json_that_is_no_plan(wrong):
    """Each entry in turn is spoilt; all that is a number or holds numbers is complained of."""
    whole = plan_to_json(FULL)
    for path in list(_leaves(whole)):
        spoilt = json.loads(json.dumps(whole))
        *parents, name = path
        place = spoilt
        for parent in parents:
            place = place[parent]
        if wrong == "missing":
            del place[name]
        else:
            place[name] = {"text": "north", "NaN": float("nan"), "list": [[]]}[wrong]
        try:
            back = plan_from_json(spoilt)
        except PlanningError as error:
            assert "\n" not in str(error)
        else:  # shorter lists of waypoints or anchors, other words
            assert isinstance(back, Plan)
            assert set(path) & {"words", "usage", "label"} or wrong == "missing" and (
                isinstance(name, int)
            ), path


@pytest.mark.parametrize("value", [None, [], {}, {"schema_version": 2}, {"schema_version": 1}, 3])
def test_json_of_another_kind_or_version(value):
    with pytest.raises(PlanningError, match="schema version|has no field"):
        plan_from_json(value)
