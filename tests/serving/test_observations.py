"""What clients send: each mistake is named; what comes out is a request or an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bridgeact_jax.errors import UserError
from bridgeact_jax.serving.observations import KEYS, Request, parse

GOOD = {
    "position": [0.5, 0.0, 0.3],
    "rotation": np.float64([0, 1, 0, 0]),
    "gripper_width": 0.4,
    "cloud": np.zeros((5, 3), np.float16),
    "depth": np.full((4, 6), 500, np.uint16),
    "intrinsics": [[100, 0, 3], [0, 100, 2], [0, 0, 1]],
    "camera_pose": np.eye(4),
    "image": np.zeros((4, 6, 3), np.uint8),
    "prompt": "lift the cube",
    "plan": {"position": [[0.5, 0, 0.2]], "rotation": [[0, 1, 0, 0]], "gripper": [0]},
    "time": 3.5,
    "sent": np.float32(3.5),
    "gripper": True,
}


def test_a_good_message_is_taken_as_it_is():
    request = parse(GOOD)
    assert request.kind == "act" and request.prompt == "lift the cube" and request.time == 3.5
    assert request.position.dtype == np.float32 and (request.rotation == [0, 1, 0, 0]).all()
    assert request.sight.depth.max() == np.float32(0.5)
    assert request.plan.position.shape == (1, 3) and request.gripper == 1
    assert np.isnan(parse({key: GOOD[key] for key in ("position", "rotation")}).gripper_width)
    assert parse({"request": "reset", "seed": 3}).seed == 3


def test_a_quaternion_that_is_nearly_one_becomes_one():
    request = parse({**GOOD, "rotation": [0, 1.05, 0, 0]})
    assert request.rotation == pytest.approx([0, 1, 0, 0])


WRONG = {
    "position": [[1, 2], "far", [0, 0, np.nan], [400.0, 0, 300], np.zeros((3, 3)), {"x": 1}],
    "rotation": [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0], [np.inf, 0, 0, 0]],
    "gripper_width": [2, "open", [1, 2], np.inf],
    "gripper": [np.nan, -1, {}],
    "cloud": [[[1, 2, 3]], np.zeros((5, 4), np.float32), np.zeros((5, 3), int), 7],
    "depth": [np.zeros((4, 6), np.int64), np.zeros(6, np.float32), np.zeros((0, 4), np.float32)],
    "intrinsics": [np.zeros((3, 3)), [1, 2, 3], None],
    "camera_pose": [np.zeros((4, 4)), np.diag([1, 1, -1, 1.0]), None],
    "image": [np.zeros((4, 6), np.uint8), np.zeros((4, 5, 3), np.uint8), "picture"],
    "prompt": ["", "  ", 5],
    "plan": [
        {},
        [[1, 2, 3]],
        {**GOOD["plan"], "position": np.zeros((0, 3))},
        {**GOOD["plan"], "gripper": [0, 1]},
        {**GOOD["plan"], "gripper": [7]},
        {**GOOD["plan"], "rotation": [[0, 0, 0, 0]]},
        {"position": np.zeros((24, 3)), "rotation": [[1, 0, 0, 0]] * 24, "gripper": [1] * 24},
    ],
    "time": ["now", np.nan, np.inf],
    "sent": [np.zeros(3)],
    "request": ["fly", 3],
}


@pytest.mark.parametrize(
    "key, value", [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_mistake_is_named_with_what_would_be_right(key, value):
    with pytest.raises(UserError) as error:
        parse({**GOOD, key: value})
    message = str(error.value)
    assert f"'{key}" in message and KEYS[key] in message and "\n" not in message


def test_an_unknown_key_is_named_with_the_nearest():
    with pytest.raises(UserError, match="unknown key 'postion': did you mean 'position'"):
        parse({**GOOD, "postion": 1})


@pytest.mark.parametrize("key", ["position", "rotation"])
def test_a_missing_key_is_named(key):
    with pytest.raises(UserError, match=f"no '{key}': must be"):
        parse({name: value for name, value in GOOD.items() if name != key})


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.floats(), max_size=4),
    hnp.arrays(
        st.sampled_from(["<f2", "<f4", ">f8", "i8", "u1", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
)


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(sorted(KEYS)), values | st.dictionaries(st.text(), values)),
    st.sets(st.sampled_from(sorted(GOOD))),
)
def test_whatever_is_sent_is_a_request_or_a_mistake(odd, good):
    try:
        request = parse({**{key: GOOD[key] for key in good}, **odd})
    except UserError:
        return
    assert isinstance(request, Request)
    if request.kind != "reset":
        assert np.isfinite(request.position).all()
        assert np.linalg.norm(request.rotation) == pytest.approx(1, abs=1e-5)
