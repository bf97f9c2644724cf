"""Points for what a model thinks and does, as ChatVLA-2 gives them (arXiv 2505.21906).

Math matching: reading out of 4 (the numbers on the whiteboard 1, the cards' values and positions 1,
the signs 2), reasoning out of 2 (the answer 1, the card 1), and success. Toy placement: the object,
the spatial affordance, and success. Each sentence counts for itself, also in a text that as a whole
is no thought; of a sentence said twice the first counts, of steps the last result is the answer. A
point is given in full or not at all.
The knowledge test is scored by exact answers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bridgeact_jax.sim.front_camera import on_table
from bridgeact_jax.sim.tasks.toy_placement import related
from bridgeact_jax.vla import reasoning

NEAR = 0.03  # metres from a toy's middle within which one points at it


class MathScore(NamedTuple):
    """Points of a math matching game."""

    numbers: int
    cards: int
    signs: int
    answer: int
    card: int
    success: bool

    @property
    def ocr(self) -> int:
        """What was read, out of 4."""
        return self.numbers + self.cards + self.signs

    @property
    def math(self) -> int:
        """What was concluded, out of 2."""
        return self.answer + self.card


class ToyScore(NamedTuple):
    """Points of a toy placement: the right toy was meant, and a right place for it."""

    object: int
    affordance: int
    success: bool


Score = MathScore | ToyScore


def score(text: str, facts: Mapping, success: bool) -> Score:
    """The points of an episode.

    Args:
      text: what the model said; "" for one that says nothing.
      facts: of the episode's layout, see `sim.tasks.reading`.
      success: as the simulator judged it.
    """
    return (_math if "equation" in facts else _toys)(text, facts, success)


def points(score: Score) -> dict[str, int]:
    """By name, without success; of a math matching game also their sums "ocr" and "math"."""
    found = {name: value for name, value in score._asdict().items() if name != "success"}
    return found | ({"ocr": score.ocr, "math": score.math} if isinstance(score, MathScore) else {})


def knowledge(
    said: Sequence[str], answers: Sequence[str], groups: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """(right, asked) by group of questions; right is what is said exactly as the answer."""
    counts: dict[str, tuple[int, int]] = {}
    for one, answer, group in zip(said, answers, groups, strict=True):
        right, asked = counts.get(group, (0, 0))
        counts[group] = right + (one.strip() == answer), asked + 1
    return counts


def _math(text: str, facts: Mapping, success: bool) -> MathScore:
    board = reasoning.BOARD.search(text)
    numbers = signs = False
    if board is not None:
        numbers, signs = (
            re.findall(piece, board[1]) == re.findall(piece, facts["equation"])
            for piece in (r"\d+", "[-+×]")
        )
    cards = reasoning.CARDS.search(text)
    steps = reasoning.STEPS.findall(text)
    choice = reasoning.CHOICE.search(text)
    return MathScore(
        numbers=int(numbers),
        cards=int(cards is not None and [*map(int, cards.groups())] == [*facts["cards"].values()]),
        signs=2 * int(signs),
        answer=int(bool(steps) and int(steps[-1].split(" = ")[1]) == facts["answer"]),
        card=int(choice is not None and choice.groups() == (str(facts["answer"]), facts["pick"])),
        success=success,
    )


def _toys(text: str, facts: Mapping, success: bool) -> ToyScore:
    intent = reasoning.INTENT.search(text)
    try:
        pointed_at = reasoning.parse_places(text)
    except reasoning.ReasoningError:
        pointed_at = ()
    if intent is None or not pointed_at:
        return ToyScore(0, 0, success)
    toy, relation, reference = intent.groups()
    spots = [on_table(np.array(place.pixel)) for place in pointed_at]
    places = facts["places"]
    meant = toy == facts["toy"] and np.linalg.norm(spots[0] - places[facts["toy"]]) < NEAR
    there = related(facts["relation"], spots[-1], np.array(places[facts["reference"]]))
    right = (relation, reference) == (facts["relation"], facts["reference"])
    return ToyScore(int(meant), int(right and there), success)
