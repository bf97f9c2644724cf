"""Points against cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.sim.front_camera import pixel_of
from bridgeact_jax.vla.reasoning import truth
from bridgeact_jax.vla.scoring import MathScore, ToyScore, knowledge, score
from tests.sim.episodes import SEED, environment
from tests.vla.test_reasoning import MATH_TEXT

FACTS = {
    "equation": "14 - 6", "answer": 8, "cards": {"left": 8, "middle": 13, "right": 2},
    "pick": "left",
}


def test_all_is_right():
    found = score(MATH_TEXT, FACTS, True)
    assert found == MathScore(1, 1, 2, 1, 1, True) and (found.ocr, found.math) == (4, 2)


@pytest.mark.parametrize(
    "old, new, points",
    [  # numbers, cards, signs, answer, card
        ("is 14 - 6.", "is 14 - 9.", (0, 1, 2, 1, 1)),
        ("is 14 - 6.", "is 14 + 6.", (1, 1, 0, 1, 1)),
        ("is 14 - 6.", "is 14 - 6 - 1.", (0, 1, 0, 1, 1)),
        ("14 - 6 = 8", "14 - 6 = 9", (1, 1, 2, 0, 1)),
        ("14 - 6 = 8. ", "14 - 6 = 8. 8 + 1 = 9. ", (1, 1, 2, 0, 1)),
        ("13 (middle)", "18 (middle)", (1, 0, 2, 1, 1)),
        ("8 (left), 13 (middle)", "13 (left), 8 (middle)", (1, 0, 2, 1, 1)),
        ("pick 8 from left", "pick 8 from right", (1, 1, 2, 1, 0)),
        ("pick 8 from left", "pick 2 from right", (1, 1, 2, 1, 0)),
        ("on the whiteboard is 14 - 6. ", "", (0, 1, 0, 1, 1)),
        ("there are 8 (left), 13 (middle), 2 (right). ", "", (1, 0, 2, 1, 1)),
        (" over 31, 07: 145 open, 045 close, 245 close.", "", (1, 1, 2, 1, 1)),
        (MATH_TEXT, "", (0, 0, 0, 0, 0)),
        (MATH_TEXT, "i should pick", (0, 0, 0, 0, 0)),
    ],
)
def test_each_sentence_counts_for_itself(old, new, points):
    assert old in MATH_TEXT
    assert score(MATH_TEXT.replace(old, new), FACTS, False) == MathScore(*points, False)


TOY_FACTS = {
    "toy": "red cube", "relation": "left of", "reference": "blue can",
    "places": {"red cube": [0.56, 0.05], "blue can": [0.50, 0.0], "green disc": [0.50, 0.12]},
}


def toy_text(toy="red cube", relation="left of", reference="blue can", grasp=(0.56, 0.05),
             release=(0.50, -0.10)):  # fmt: skip
    pixels = [pixel_of([*spot, 0.0]).round().astype(int) for spot in (grasp, release)]
    over = [f"over {u:02d}, {v:02d}: 100 {what}." for (u, v), what in zip(
        pixels, ("close", "open"), strict=True)]  # fmt: skip
    return f"i should pick the {toy} and place it {relation} the {reference}. {' '.join(over)}"


@pytest.mark.parametrize(
    "changes, points",
    [
        ({}, (1, 1)),
        ({"toy": "red can"}, (0, 1)),
        ({"grasp": (0.56, 0.08)}, (0, 1)),
        ({"relation": "right of"}, (1, 0)),
        ({"reference": "green disc"}, (1, 0)),
        ({"release": (0.50, 0.10)}, (1, 0)),
        ({"release": (0.58, -0.06)}, (1, 0)),
        ({"toy": "red can", "relation": "behind"}, (0, 0)),
    ],
)
def test_toy_placement(changes, points):
    assert score(toy_text(**changes), TOY_FACTS, True) == ToyScore(*points, True)


def test_words_without_a_place_are_not_enough():
    assert score(toy_text().split(" over")[0], TOY_FACTS, False) == ToyScore(0, 0, False)
    assert score("", TOY_FACTS, False) == ToyScore(0, 0, False)


@pytest.mark.parametrize("name", ["math_matching_reworded", "toy_placement", "toy_placement_open"])
def test_the_truth_has_all_points(name):
    env = environment(name)
    for episode in range(5):
        env.reset(SEED, episode)
        found = score(truth(env), env.layout.facts, True)
        assert found == (
            MathScore(1, 1, 2, 1, 1, True) if name.startswith("math") else ToyScore(1, 1, True)
        )


@given(st.text(alphabet="0123456789 +-×=.,()abcdehilnorsuvw", max_size=120))
def test_any_text_has_points(text):
    assert 0 <= score(text, FACTS, False).ocr <= 4
    assert score(text, TOY_FACTS, False).object in (0, 1)


def test_knowledge_is_scored_by_exact_answers():
    found = knowledge(["8", "08", "red", ""], ["8", "8", "red", "blue"], ["sum", "sum", "c", "c"])
    assert found == {"sum": (1, 2), "c": (1, 2)}
    assert knowledge([], [], []) == {}
