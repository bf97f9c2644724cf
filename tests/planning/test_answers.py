"""Answers as models give them: what is used, and what is complained of and how."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.planning.answers import (
    MAX_ANCHORS,
    AnswerError,
    parse_anchors,
    parse_plan,
    words_of,
    write_anchors,
    write_plan,
)
from bridgeact_jax.planning.protocol import MAX_WAYPOINTS, Anchor, Plan, PlannedPose
from bridgeact_jax.planning.schemas import ANCHORS_ANSWER, PLAN_ANSWER
from tests.planning.conftest import HEIGHT, WIDTH

ANCHORS = '{"anchors": [{"label": "grasp", "pixel": [30, 12]}, {"label": "goal", "pixel": [5, 9]}]}'
POSE = {"xyz": [0.05, -0.02, 0.6], "gripper": 1, "quaternion": [0.6, 0.8, 0, 0]}
TARGET = {"xyz": [0.05, -0.02, 0.7], "gripper": 0, "quaternion": [0.8, 0.6, 0, 0]}
PLAN = json.dumps({"waypoints": [POSE], "target": TARGET})


def plan_with(**changed):
    return json.dumps({"waypoints": [{**POSE, **changed}], "target": TARGET})


WRAPPED = {
    "bare": ("", "", ""),
    "prose": ("I see a cube {red}.\n", "\nGood luck {0}!", "I see a cube {red}.\nGood luck {0}!"),
    "fence": ("```json\n", "\n```", ""),
    "fence and prose": ("Here:\n```\n", "\n```\nDone.", "Here:\nDone."),
    "thoughts": (
        '<think>maybe {"anchors": [], "waypoints": []}?</think>',
        "",
        '<think>maybe {"anchors": [], "waypoints": []}?</think>',
    ),
    "a draft": ('{"anchors": 1, "waypoints": 2} No:', "", '{"anchors": 1, "waypoints": 2} No:'),
    "another object": ('{"note": "a"}', ' {"note": "b"}', '{"note": "a"}\n{"note": "b"}'),
    "another language": ("Zuerst \u00fcber den W\u00fcrfel. \u7136\u540e", "", None),
}


@pytest.mark.parametrize("before, after, words", WRAPPED.values(), ids=WRAPPED.keys())
def test_words_around_the_json(before, after, words):
    words = before if words is None else words
    text = before + ANCHORS + after
    assert [one.pixel for one in parse_anchors(text, WIDTH, HEIGHT)] == [(30, 12), (5, 9)]
    assert words_of(text, "anchors") == words
    plan = parse_plan(before + PLAN + after)
    assert plan.target == PlannedPose((0.05, -0.02, 0.7), 0.0, (0.8, 0.6, 0.0, 0.0))
    assert plan.words == words


def test_what_may_be_missing():
    for spare in ({}, {"quaternion": None}):
        row = {"xyz": [0.0, 0.0, 0.5], "gripper": 0.5, **spare}
        text = json.dumps({"waypoints": [row], "target": TARGET, "confidence": None})
        plan = parse_plan(text)
        assert plan.waypoints[0].rotation is None and plan.confidence is None
    assert parse_plan(json.dumps({"waypoints": [], "target": TARGET})).waypoints == ()
    assert parse_plan(PLAN[:-1] + ', "confidence": 0.25}').confidence == 0.25


def anchors_at(*pixels):
    return json.dumps({"anchors": [{"label": "grasp", "pixel": list(at)} for at in pixels]})


WRONG_ANCHORS = {
    "prose": ("Take the red cube.", 'no JSON object: answer with {"anchors"'),
    "empty": ("", "no JSON object"),
    "truncated": (ANCHORS[:-20], "ends before it is complete"),
    "truncated in a fence": ("```json\n" + ANCHORS[:33], "ends before it is complete"),
    "a comma too many": (ANCHORS.replace("]}]}", "]},]}"), "not valid at"),
    "Python": (str(json.loads(ANCHORS)), "not valid at"),
    "a later draft": (ANCHORS + ' better: {"anchors": [{"label', "ends before"),
    "other keys": ('{"anker": []}', '"anchors" but "anker": keep .* English'),
    "wrapped": (f'{{"answer": {ANCHORS}}}', "not at the top"),
    "a list": ("[[3, 4]]", "no JSON object"),
    "no list": ('{"anchors": {"grasp": [3, 4]}}', "must be a list"),
    "none": ('{"anchors": []}', '"anchors" is empty'),
    "too many": (anchors_at(*[(3, 4)] * 11), f"11 .* at most {MAX_ANCHORS}"),
    "bare pixel": ('{"anchors": [[3, 4]]}', 'Anchor 1 must be a JSON object with "label"'),
    "no label": ('{"anchors": [{"pixel": [3, 4]}]}', '"label" is missing in anchor 1'),
    "no pixel": (
        '{"anchors": [{"label": "grasp", "point": [3, 4]}]}',
        '"pixel" is missing in anchor 1, with "label", "point"',
    ),
    "number as label": ('{"anchors": [{"label": 3, "pixel": [3, 4]}]}', '"label" of anchor 1'),
    "NaN": (anchors_at((math.nan, 4)), r"\[NaN, 4\]: give a list of 2 finite"),
    "infinite": (anchors_at((3, 4), (math.inf, 4)), "anchor 2 stands .*2 finite"),
    "too large": (ANCHORS.replace("30", "1" + "0" * 400), "2 finite"),
    "absurdly large": (ANCHORS.replace("30", "1" * 5000), "absurd"),
    "absurdly deep": ('{"anchors": ' + "[" * 10**5, "absurd|ends before"),
    "a box": (anchors_at((3, 4, 10, 12)), "2 finite"),
    "text": (anchors_at(("3", "4")), "2 finite"),
    "shares": (anchors_at((0.52, 0.3)), "shares of the picture's size: give whole pixels"),
    "shares of all": (anchors_at((0.52, 0.3), (1, 0)), "shares"),
    "thousandths": (anchors_at((520, 300)), r"\[520, 300\] .* 60 x 40.*not scaled to 1000"),
    "swapped": (anchors_at((12, 45)), r"\[12, 45\] of anchor 1 .*u from 0 to 59 .*then v .* 39"),
    "negative": (anchors_at((-3, 4)), "outside"),
    "one beside": (anchors_at((60, 4)), "outside"),
}


@pytest.mark.parametrize("text, complaint", WRONG_ANCHORS.values(), ids=WRONG_ANCHORS.keys())
def test_anchors_that_cannot_be_used(text, complaint):
    with pytest.raises(AnswerError, match=complaint) as error:
        parse_anchors(text, WIDTH, HEIGHT)
    is_one_sentence(str(error.value))


def is_one_sentence(complaint):
    assert complaint.endswith(".") and "\n" not in complaint and len(complaint) < 300
    assert complaint[0].isupper()


def test_corner_pixels():
    for pixel in ((2, 0), (59, 0), (0, 39), (59.4, 39.4)):
        assert parse_anchors(anchors_at(pixel), WIDTH, HEIGHT)[0].pixel == pixel


METRES = "give metres, not millimetres"
AXES = "x to the right, y down, z forward"
WRONG_PLANS = {
    "prose": ("Move down and close the hand.", "no JSON object"),
    "empty plan": ("{}", 'no field "waypoints" but none'),
    "no way and no target": ('{"waypoints": []}', '"target" is missing in the answer'),
    "null target": (json.dumps({"waypoints": [POSE], "target": None}), '"target" is missing'),
    "the first answer": (ANCHORS, 'no field "waypoints" but "anchors"'),
    "another language": ('{"wegpunkte": [], "ziel": {}}', 'but "wegpunkte", "ziel": .*English'),
    "truncated": (PLAN[:60], "ends before it is complete"),
    "truncated number": (PLAN[: PLAN.index("0.6") + 2], "ends before it is complete"),
    "200 waypoints": (
        json.dumps({"waypoints": [POSE] * 200, "target": TARGET}),
        f'200 "waypoints": give at most {MAX_WAYPOINTS}',
    ),
    "no xyz": (plan_with(xyz=None), '"xyz" is missing in waypoint 1, with "xyz", "gripper"'),
    "no gripper": (plan_with(gripper=None), '"gripper" is missing in waypoint 1'),
    "gripper in words": (plan_with(gripper="open"), r'"open": give a number .* \(1 = open\)'),
    "gripper in percent": (plan_with(gripper=100), "is 100: give a number from 0 to 1"),
    "gripper true": (plan_with(gripper=True), "is true: give a number"),
    "gripper NaN": (plan_with(gripper=math.nan), "is NaN: give a number"),
    "NaN": (plan_with(xyz=[0, math.nan, 0.5]), r"waypoint 1 stands \[0, NaN, 0.5\]: .* 3 finite"),
    "infinite": (plan_with(xyz=[0, -math.inf, 0.5]), "3 finite"),
    "text": (plan_with(xyz=["0", "0", "0.5"]), "3 finite"),
    "two numbers": (plan_with(xyz=[0.1, 0.5]), "3 finite"),
    "a pose of six": (plan_with(xyz=[0, 0, 0.5, 0, 0, 0]), "3 finite"),
    "nested": (plan_with(xyz=[[0.0, 0.0, 0.5]]), "3 finite"),
    "an object": (plan_with(xyz={"x": 0, "y": 0, "z": 0.5}), "3 finite"),
    "Euler angles": (plan_with(quaternion=[0, 0, 1.57]), "list of 4 finite"),
    "no rotation": (plan_with(quaternion=[0, 0, 0, 0]), "length 0: give a unit quaternion"),
    "a rotation too long": (plan_with(quaternion=[1, 1, 0, 0]), "length 1.41"),
    "target's rotation": (
        json.dumps({"waypoints": [POSE], "target": {**TARGET, "quaternion": None}}),
        'target has no "quaternion"',
    ),
    "confidence": (PLAN[:-1] + ', "confidence": 95}', 'The "confidence" is 95'),
    "millimetres": (plan_with(xyz=[50, -20, 600]), rf"\[50, -20, 600\] of waypoint 1 .*{METRES}"),
    "millimetres in the target": (
        json.dumps({"waypoints": [POSE], "target": {**TARGET, "xyz": [50, -20, 700]}}),
        f"of the target .*{METRES}",
    ),
    "pixels": (plan_with(xyz=[120, 88, 0.6]), METRES),
    "behind": (plan_with(xyz=[0.1, 0.2, -0.6]), f"behind the camera: .*{AXES}"),
    "z first": (plan_with(xyz=[0.6, 0.05, -0.02]), f"behind the camera: .*{AXES}"),
    "z in the middle": (plan_with(xyz=[0.05, 0.6, 0.02]), f"far outside .*{AXES}"),
    "z first, right": (plan_with(xyz=[0.6, -0.02, 0.05]), f"far outside .*{AXES}"),
    "in the base frame": (plan_with(xyz=[0.5, 0.1, 0.05]), f"far outside .*{AXES}"),
}


@pytest.mark.parametrize("text, complaint", WRONG_PLANS.values(), ids=WRONG_PLANS.keys())
def test_plans_that_cannot_be_used(view, text, complaint):
    with pytest.raises(AnswerError, match=complaint) as error:
        parse_plan(text, view)
    is_one_sentence(str(error.value))


def test_beside_the_picture_is_not_far_outside(view):
    """A whole picture's width to the right is still good; a little more is not."""
    camera, z = view.camera, 0.5
    edge = (2 * WIDTH - float(camera.cx)) / float(camera.fx) * z
    parse_plan(plan_with(xyz=[edge - 1e-3, 0, z]), view)
    with pytest.raises(AnswerError):
        parse_plan(plan_with(xyz=[edge + 1e-3, 0, z]), view)


unit = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda values: math.hypot(*values) > 0.1
)
metre = st.floats(-0.9, 0.9)
poses = st.builds(
    lambda x, y, z, gripper, q: PlannedPose(
        (x, y, z + 1.0), gripper, tuple(value / math.hypot(*q) for value in q)
    ),
    metre, metre, metre, st.sampled_from([0.0, 1.0]), unit,
)
anchors = st.builds(
    Anchor,
    st.text(min_size=1).map(lambda text: f"a{text.strip()}"),
    st.tuples(st.integers(2, WIDTH - 1), st.integers(0, HEIGHT - 1)),
)


@given(
    st.lists(poses, max_size=MAX_WAYPOINTS), poses, st.none() | st.floats(0, 1),
    st.sampled_from(["", "Down, then up.", "A {brace}\n```"]),
)
def test_a_written_plan_is_read_as_it_was(waypoints, target, confidence, words):
    """Within rounding: half a millimetre, and 1e-3 of a quaternion's numbers, of either sign."""
    plan = Plan(tuple(waypoints), target, words=words, confidence=confidence)
    back = parse_plan(write_plan(plan))
    assert len(back.waypoints) == len(waypoints) and back.words == words.removesuffix("\n```")
    assert (back.confidence is None) == (confidence is None)
    for read, written in zip((*back.waypoints, back.target), (*waypoints, target), strict=True):
        np.testing.assert_allclose(read.position, written.position, atol=5.01e-4)
        assert read.gripper == written.gripper
        sign = np.sign(np.dot(read.rotation, written.rotation))
        np.testing.assert_allclose(sign * np.array(read.rotation), written.rotation, atol=2e-3)


@given(st.lists(anchors, min_size=1, max_size=MAX_ANCHORS))
def test_written_anchors_are_read_as_they_were(anchors):
    back = parse_anchors(write_anchors(tuple(anchors)), WIDTH, HEIGHT)
    assert [one.pixel for one in back] == [one.pixel for one in anchors]
    assert [one.label for one in back] == [
        one.label.encode("utf-8", "replace").decode() for one in anchors
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["anchors", "waypoints", "target", "xyz", "pixel", "gripper", "\ud800"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)
garbled = st.one_of(
    st.text(),
    json_values.map(json.dumps),
    st.builds(lambda name, value: json.dumps({name: value}),
              st.sampled_from(["anchors", "waypoints"]), json_values),
    st.builds(lambda text, at, junk: text[:at] + junk + text[at:],
              st.sampled_from([ANCHORS, PLAN]), st.integers(0, 200), st.text(max_size=3)),
    st.builds(lambda text, first, last: text[first:-last],
              st.sampled_from([ANCHORS, PLAN]), st.integers(0, 99), st.integers(1, 99)),
)


@given(garbled)
def test_whatever_a_model_says_is_used_or_complained_of(view, text):
    for parse in (lambda: parse_anchors(text, WIDTH, HEIGHT), lambda: parse_plan(text, view)):
        try:
            parse()
        except AnswerError as error:
            str(error).encode("utf-8")
            assert str(error).endswith(".")


def test_schemas_are_strict_and_name_what_is_read():
    """Every field is required and no other allowed: the servers' strict mode demands it."""

    def check(schema):
        if schema.get("type") == "object":
            assert schema["required"] == list(schema["properties"])
            assert schema["additionalProperties"] is False
        for child in (*schema.get("properties", {}).values(), *schema.get("anyOf", ())):
            check(child)
        if "items" in schema:
            check(schema["items"])

    check(ANCHORS_ANSWER)
    check(PLAN_ANSWER)
    row = PLAN_ANSWER["properties"]["waypoints"]["items"]["properties"]
    assert list(row) == list(POSE)
    assert {*json.loads(PLAN), "confidence"} == set(PLAN_ANSWER["properties"])
