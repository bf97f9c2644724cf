"""Drawings with questions: right answers, a known vocabulary, and worlds that do not mix."""

import re

import numpy as np
import pytest

from bridgeact_jax.sim.equations import Equation
from bridgeact_jax.sim.front_camera import SIZE, pixel_of
from bridgeact_jax.sim.objects import COLOURS
from bridgeact_jax.sim.splits import is_held_out
from bridgeact_jax.vla import tokenizer
from bridgeact_jax.vla.drawing import Drawing
from bridgeact_jax.vla.imagetext import GROUPS, TEST_SHARE, TESTED, sample

LONGEST_QUESTION, LONGEST_ANSWER = 20, 24  # tokens
NUMBER = 6


@pytest.mark.parametrize("group", GROUPS)
def test_samples(group):
    for number in range(NUMBER):
        test = group in TESTED and number % 2 == 1
        drawn = sample(group, number, 4, test=test)
        assert drawn.picture.shape == (*SIZE, 3) and drawn.picture.dtype == np.uint8
        for text, most in ((drawn.question, LONGEST_QUESTION), (drawn.answer, LONGEST_ANSWER)):
            assert tokenizer.canonical(text) == text
            assert 0 < len(tokenizer.encode(text)) <= most
        assert is_held_out(f"knowledge/{drawn.content}", TEST_SHARE) == test
    again = sample(group, number, 4, test=test)
    np.testing.assert_array_equal(again.picture, drawn.picture)
    assert again[1:] == drawn[1:]
    assert not np.array_equal(sample(group, number, 5, test=test).picture, drawn.picture)


@pytest.mark.parametrize("group", ["read", "sum", "steps"])
def test_equations_are_those_of_the_open_world_and_worked_out(group):
    for number in range(NUMBER):
        drawn = sample(group, number, 0)
        text = drawn.content.rsplit(" ", 1)[0]
        numbers, signs = (re.findall(p, text) for p in (r"\d+", "[-+×]"))
        equation = Equation(tuple(map(int, numbers)), tuple(signs))
        assert equation.text == text and equation.is_open
        assert drawn.answer == {
            "read": text, "sum": str(equation.answer),
            "steps": " ".join(step + "." for step in equation.steps),
        }[group]  # fmt: skip


def test_answers_follow_from_what_is_shown():
    for number in range(2 * NUMBER):
        cards = sample("cards", number, 1)
        values = cards.content.split()
        assert [n for n in re.findall(r"\d+", cards.answer)] == values
        position = sample("position", number, 1)
        places = dict(zip(("left", "middle", "right"), position.content.split(), strict=True))
        asked, said = position.question.removesuffix("?").split()[-1], position.answer
        assert places.get(asked) == said or places.get(said) == asked
        for group in ("colour", "shape"):
            drawn = sample(group, number, 1)
            words = drawn.question.removesuffix("?").split() + [drawn.answer]
            shown = re.findall(r"(\w+) (\w+)", drawn.content)
            fits = [toy for toy in shown if set(toy) <= set(words)]
            alike = [toy for toy in shown if words[-2] in toy]
            assert len(fits) == 1 and alike == fits
        count = sample("count", number, 1)
        shape = count.question.split()[2].removesuffix("s")
        assert int(count.answer) == len(re.findall(
            "[a-z]+ [a-z]+" if shape == "toy" else shape, count.content
        ))  # fmt: skip


def test_a_drawn_toy_is_seen_where_the_camera_sees_it():
    for colour in COLOURS:
        drawing, xy = Drawing(np.random.default_rng(0)), np.array([0.55, 0.05])
        drawing.toy(colour, "cube", xy, 0.2, 1.0)
        u, v = pixel_of(np.array([*xy, 0.0225])).round().astype(int)
        seen = drawing.picture()[v - 1 : v + 2, u - 1 : u + 2].reshape(-1, 3).mean(axis=0)
        meant = np.array(COLOURS[colour][:3])
        assert seen @ meant / np.linalg.norm(seen) / np.linalg.norm(meant) > 0.97


def test_writing_on_a_sheet_is_not_mirrored():
    """A sheet whose left half is black."""
    writing = np.full((20, 40, 3), 250, np.uint8)
    writing[:, :20] = 0
    drawing = Drawing(np.random.default_rng(0))
    drawing.sheet(np.array([[20, 20], [60, 20], [60, 40], [20, 40]]), writing)
    row = drawing.picture()[30].mean(axis=-1)
    assert row[22:38].max() < 10 and row[42:58].min() > 240 and 10 < row[10]
