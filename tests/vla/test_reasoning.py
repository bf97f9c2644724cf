"""Thoughts as text and back, and the waypoints in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.sim.front_camera import on_table
from bridgeact_jax.sim.tasks import WORLDS, wording
from bridgeact_jax.sim.tasks.reading import DOWN
from bridgeact_jax.sim.tasks.toy_placement import RELATIONS, TOYS_OF_ALL
from bridgeact_jax.vla import tokenizer
from bridgeact_jax.vla.reasoning import (
    MathWords,
    Place,
    ReasoningError,
    ToyWords,
    parse,
    parse_waypoints,
    truth,
    waypoints_of,
    write,
)
from tests.sim.episodes import SEED, environment, follow
from tests.vla.thoughts import places, thoughts

LONGEST, LONGEST_INSTRUCTION = 100, 24  # tokens
MATH_TEXT = (
    "on the whiteboard is 14 - 6. 14 - 6 = 8. there are 8 (left), 13 (middle), 2 (right). "
    "i should pick 8 from left. over 31, 07: 145 open, 045 close, 245 close."
)
TOY_TEXT = (
    "there are a red cube, an orange can and a green disc. i should pick the red cube and place it "
    "in front of the orange can. over 31, 22: 145 open, 030 close. over 50, 20: 035 open."
)


def test_the_forms_of_a_thought():
    place = Place((31, 7), ((145, True), (45, False), (245, False)))
    words = MathWords("14 - 6", ("14 - 6 = 8",), (8, 13, 2), 8, "left", (place,))
    assert write(words) == MATH_TEXT and parse(MATH_TEXT) == words
    there, here = Place((31, 22), ((145, True), (30, False))), Place((50, 20), ((35, True),))
    toys = ("red cube", "orange can", "green disc")
    words = ToyWords(toys, "red cube", "in front of", "orange can", (there, here))
    assert write(words) == TOY_TEXT and parse(TOY_TEXT) == words


@given(thoughts)
def test_what_is_written_is_read(words):
    text = write(words)
    assert parse(text) == words
    assert tokenizer.canonical(text) == text


@given(thoughts, st.data())
def test_what_is_read_would_be_written_so(words, data):
    """No mutation is taken for another text than it is."""
    text = write(words)
    pieces = text.split(" ")
    at = data.draw(st.integers(0, len(pieces) - 1))
    other = data.draw(st.sampled_from(["", "8", "-", "over", "left", "the", "08", "open,", "x."]))
    for changed in (
        " ".join([*pieces[:at], *pieces[at + 1 :]]),
        " ".join([*pieces[:at], other, *pieces[at:]]),
        " ".join([*pieces[:at], other, *pieces[at + 1 :]]),
        " ".join(pieces[: at + 1]),
        text + " " + other, text.replace(".", ",", 1), text.upper(), text + text,
    ):
        try:
            found = parse(changed)
        except ReasoningError:
            continue
        assert write(found) == changed


@pytest.mark.parametrize(
    "old, new",
    [
        ("14 - 6 = 8. ", ""), ("14 - 6 =", "14 - 6 - 2 ="), ("14 - 6. ", "14 - 6 - 1. "),
        ("14 - 6.", "014 - 6."), ("14", "140"), (" - ", "-"), ("13 (middle), ", ""),
        ("(left)", "left"), ("from left", "from above"), ("31,", "96,"), (", 07:", ", 64:"),
        ("07:", "7:"), ("145", "45"), ("245", "600"), ("045 close", "003 close"), ("close", "shut"),
        (" over 31, 07: 145 open, 045 close, 245 close.", ""), ("245 close.", "245 close"),
        ("on the", "the"), ("145 open, ", "145 open, " * 30), (".", ". ."), ("i sh", "I sh"),
    ],
)  # fmt: skip
def test_other_texts_are_refused(old, new):
    with pytest.raises(ReasoningError):
        parse(MATH_TEXT.replace(old, new))
    assert old in MATH_TEXT


@pytest.mark.parametrize(
    "old, new",
    [
        ("an orange", "a orange"), ("a red", "an red"), (" and a green disc", ""),
        ("cube and", "ball and"), ("in front of", "before"), ("the orange can", "the can"),
        ("a red cube, ", "a red cube, " * 5),
    ],
)  # fmt: skip
def test_other_texts_about_toys_are_refused(old, new):
    with pytest.raises(ReasoningError):
        parse(TOY_TEXT.replace(old, new))
    assert old in TOY_TEXT


@given(places)
def test_waypoints_are_where_the_pixels_are(given_places):
    waypoints = waypoints_of(given_places)
    rows = [(place.pixel, *move) for place in given_places for move in place.moves]
    assert waypoints.count == len(rows) == len(waypoints.position)
    for row, (pixel, height, opened) in enumerate(rows):
        np.testing.assert_allclose(
            waypoints.position[row], [*on_table(np.array(pixel)), height / 1000], atol=1e-6
        )
        assert waypoints.gripper[row] == opened
    np.testing.assert_allclose(waypoints.rotation, np.tile(DOWN, (len(rows), 1)), atol=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_is_a_thought_of_bounded_length(name):
    env = environment(name)
    for episode in range(4):
        env.reset(SEED, episode)
        text = truth(env)
        assert write(parse(text)) == text
        assert len(tokenizer.encode(text)) <= LONGEST
        assert len(tokenizer.encode(env.instruction)) <= LONGEST_INSTRUCTION
        plan, exact = parse_waypoints(text), env.waypoints()
        np.testing.assert_array_equal(plan.gripper, exact.gripper[1:])
        np.testing.assert_allclose(plan.position, exact.position[1:], atol=0.006)


def test_all_instructions_can_be_read():
    texts = [*wording.MATH, *wording.MATH_REWORDED]
    for text in (*wording.TOYS, *wording.TOYS_REWORDED):
        texts += [
            text.format(toy=toy, relation=relation, reference=toy)
            for toy in TOYS_OF_ALL for relation in RELATIONS
        ]
    for text in texts:
        assert tokenizer.canonical(text) == text
        assert len(tokenizer.encode(text)) <= LONGEST_INSTRUCTION


@pytest.mark.parametrize("name", ["math_matching", "toy_placement_open"])
def test_waypoints_of_the_truth_succeed(name):
    """Rounding to a pixel costs nothing that matters."""
    env = environment(name)
    for episode in range(3):
        env.reset(SEED, episode)
        exact, read = env.waypoints(), parse_waypoints(truth(env))
        plan = exact._replace(
            position=np.concatenate([exact.position[:1], read.position]),
            rotation=np.concatenate([exact.rotation[:1], read.rotation]),
            gripper=np.concatenate([exact.gripper[:1], read.gripper]),
        )
        follow(env, plan)
        assert env.success, (episode, env.failure_kind)
