"""Pictures with a question and a short answer, and a test of what is known that no training sees.

They stand for what a model knows before it meets a robot: numbers, the equations of the open world
(never one of a robot's; see `sim.splits`), colours, shapes, places, counts, in all hands of writing
and with all toys. What a picture shows as a whole (an equation in one hand, three numbers, a set of
toys) belongs by a rule either to training or to the knowledge test.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bridgeact_jax.sim.equations import equations
from bridgeact_jax.sim.front_camera import SIZE, pixel_of
from bridgeact_jax.sim.handwriting import HANDS, INKS, write
from bridgeact_jax.sim.splits import is_held_out
from bridgeact_jax.sim.tasks.math_matching import (
    BOARD_HALF,
    BOARD_PIXELS,
    BOARD_PLACE,
    CARD_PIXELS,
    COLUMNS,
    MOST,
    POSITIONS,
    ROWS,
    TWO_STEPS,
)
from bridgeact_jax.sim.tasks.toy_placement import (
    APART,
    DISTANCE,
    GOAL_HIGH,
    GOAL_LOW,
    HIGH,
    LOW,
    RELATIONS,
    SHAPES,
    TOYS_OF_ALL,
)
from bridgeact_jax.vla.drawing import Drawing
from bridgeact_jax.vla.reasoning import listed

TEST_SHARE = 0.1  # of what can be shown
SIZES = (0.85, 1.15)  # of cards, toys and sheets
WITH_OTHERS = 0.5  # share of the pictures with what is not asked about
MOST_COUNTED = 4
SHOWN = 0.7  # share of the questions for a number of things that are shown for sure


class Sample(NamedTuple):
    """picture (H, W, 3) uint8, question and answer, the group of questions, what is shown."""

    picture: np.ndarray
    question: str
    answer: str
    group: str
    content: str


def sample(group: str, number: int, seed: int, *, test: bool = False) -> Sample:
    """Sample `number` of a group of `GROUPS`, of training or of the knowledge test.

    The same arguments give the same sample; samples of test and training never show the same.
    """
    stream = zlib.crc32(f"{'knowledge' if test else 'imagetext'}/{group}".encode())
    rng = np.random.default_rng([stream, seed, number])
    while True:
        drawn = GROUPS[group](rng)
        if is_held_out(f"knowledge/{drawn[3]}", TEST_SHARE) == test:
            drawing, question, answer, content = drawn
            return Sample(drawing.picture(), question, answer, group, content)


Drawn = tuple[Drawing, str, str, str]  # question, answer, what is shown


def _number(rng: np.random.Generator) -> Drawn:
    value, hand, drawing = int(rng.integers(MOST + 1)), _hand(rng), Drawing(rng)
    half = rng.uniform(*SIZES) * np.array([13.0, 11.0])
    middle = rng.uniform(half + 1, np.array(SIZE[::-1]) - half - 2)
    paper = np.clip(rng.uniform(225, 252) + rng.uniform(-6, 6, 3), 0, 255).astype(int)
    sheet = write(str(value), 88, 104, hand, _ink(rng), rng, tuple(paper.tolist()))
    drawing.sheet(_corners(middle, half, rng), sheet)
    question = ("which number is this?", "what is the number?")[rng.integers(2)]
    return drawing, question, str(value), f"{value} {hand}"


def _read(rng: np.random.Generator) -> Drawn:
    drawing, equation, content = _board_scene(rng)
    return drawing, "what is on the whiteboard?", equation.text, content


def _sum(rng: np.random.Generator) -> Drawn:
    drawing, equation, content = _board_scene(rng)
    return drawing, "what is the answer?", str(equation.answer), content


def _steps(rng: np.random.Generator) -> Drawn:
    drawing, equation, content = _board_scene(rng)
    question = ("work out the answer.", "work it out.")[rng.integers(2)]
    return drawing, question, " ".join(f"{step}." for step in equation.steps), content


def _cards(rng: np.random.Generator) -> Drawn:
    drawing, values, _, content = _cards_scene(rng)
    answer = ", ".join(f"{n} ({at})" for n, at in zip(values, POSITIONS, strict=True))
    return drawing, "which numbers are on the cards?", answer, content


def _position(rng: np.random.Generator) -> Drawn:
    drawing, values, _, content = _cards_scene(rng)
    at = rng.integers(3)
    if rng.uniform() < 0.5:
        return drawing, f"which number is {POSITIONS[at]}?", str(values[at]), content
    return drawing, f"where is {values[at]}?", POSITIONS[at], content


def _point(rng: np.random.Generator) -> Drawn:
    if rng.uniform() < 0.5:
        drawing, values, places, content = _cards_scene(rng)
        at = rng.integers(3)
        return drawing, f"point at {values[at]}.", _pixel(places[at]), content
    drawing, toys, places, content = _toys_scene(rng, int(rng.integers(2, 4)))
    at = rng.integers(len(toys))
    return drawing, f"point at the {toys[at]}.", _pixel(places[at]), content


def _colour(rng: np.random.Generator) -> Drawn:
    drawing, toys, _, content = _toys_scene(rng, int(rng.integers(1, 4)), by="shape")
    colour, shape = toys[rng.integers(len(toys))].split()
    return drawing, f"which colour is the {shape}?", colour, content


def _shape(rng: np.random.Generator) -> Drawn:
    drawing, toys, _, content = _toys_scene(rng, int(rng.integers(1, 4)), by="colour")
    colour, shape = toys[rng.integers(len(toys))].split()
    return drawing, f"which toy is {colour}?", shape, content


def _toys(rng: np.random.Generator) -> Drawn:
    drawing, toys, _, content = _toys_scene(rng, int(rng.integers(1, 5)))
    return drawing, "which toys are there?", listed(toys), content


def _relation(rng: np.random.Generator) -> Drawn:
    """One toy beside, before, behind or on another."""
    toy, reference = _chosen(rng, 2, by=None)
    relation, drawing = list(RELATIONS)[rng.integers(len(RELATIONS))], Drawing(rng)
    way = DISTANCE * np.array(RELATIONS[relation])
    while True:
        there = rng.uniform(LOW, HIGH)
        aside = 0.0 if relation == "on" else 0.02
        here = there + way + rng.uniform(-aside, aside, 2)
        if np.all((here > GOAL_LOW) & (here < GOAL_HIGH)):
            break
    stack = relation == "on"
    rows = [(toy, here), (reference, there)]
    height = 0.0
    for name, xy in sorted(rows, key=lambda row: (stack and row[0] == toy, row[1][0])):
        on = height if stack and name == toy else 0.0
        height = drawing.toy(*name.split(), xy, rng.uniform(-0.3, 0.3), rng.uniform(*SIZES), on)
    content = f"{toy} {relation} {reference}"
    return drawing, f"where is the {toy}?", f"{relation} the {reference}", content


def _count(rng: np.random.Generator) -> Drawn:
    """How many toys, or how many of a shape; none to `MOST_COUNTED`."""
    drawing, toys, _, content = _toys_scene(rng, int(rng.integers(1, MOST_COUNTED + 1)))
    shown = [name.split()[1] for name in toys]
    shape = str(rng.choice(shown if rng.uniform() < SHOWN else list(SHAPES)))
    if rng.uniform() < 0.5:
        return drawing, "how many toys are there?", str(len(toys)), content
    return drawing, f"how many {shape}s are there?", str(shown.count(shape)), content


GROUPS: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "number": _number, "read": _read, "sum": _sum, "steps": _steps, "cards": _cards,
    "position": _position, "colour": _colour, "shape": _shape, "toys": _toys,
    "relation": _relation, "count": _count, "point": _point,
}
TESTED = tuple(group for group in GROUPS if group != "point")  # a pixel beside is no mistake


# ---- what is shown ------------------------------------------------------------------------------


def _board_scene(rng: np.random.Generator):
    """An equation of the open world, perhaps with cards: drawing, equation, content."""
    pool = equations(1 + (rng.uniform() < TWO_STEPS), open_world=True)
    equation, hand, drawing = pool[rng.integers(len(pool))], _hand(rng), Drawing(rng)
    if rng.uniform() < WITH_OTHERS:
        _draw_cards(drawing, rng.integers(MOST + 1, size=3), rng)
    _draw_board(drawing, equation.text, hand, rng)
    return drawing, equation, f"{equation.text} {hand}"


def _cards_scene(rng: np.random.Generator):
    """Three different cards, perhaps with a board: drawing, values, (3, 2) places, content."""
    values, drawing = rng.choice(MOST + 1, 3, replace=False).tolist(), Drawing(rng)
    places = _draw_cards(drawing, values, rng)
    if rng.uniform() < WITH_OTHERS:
        pool = equations(1, open_world=True)
        _draw_board(drawing, pool[rng.integers(len(pool))].text, _hand(rng), rng)
    return drawing, values, places, " ".join(map(str, values))


def _toys_scene(rng: np.random.Generator, count: int, by: str | None = None):
    """Toys apart from each other: drawing, names and (n, 2) places from the left, content.

    Args:
      by: "shape" or "colour", in which they all differ.
    """
    names, places, drawing = _chosen(rng, count, by), [], Drawing(rng)
    while len(places) < count:
        xy = rng.uniform(GOAL_LOW, GOAL_HIGH)
        if all(np.linalg.norm(xy - other) >= 0.75 * APART for other in places):
            places.append(xy)
    places.sort(key=lambda xy: xy[1])
    for name, xy in sorted(zip(names, places, strict=True), key=lambda row: row[1][0]):
        drawing.toy(*name.split(), xy, rng.uniform(-0.3, 0.3), rng.uniform(*SIZES))
    return drawing, names, places, " ".join(sorted(names))


def _draw_board(drawing: Drawing, text: str, hand: str, rng: np.random.Generator) -> None:
    """The board about where it stands in the world."""
    middle = pixel_of(BOARD_PLACE) + rng.uniform((-6, -5), (6, 1))
    scale = np.abs(pixel_of(BOARD_PLACE + [0, BOARD_HALF[0], 0]) - pixel_of(BOARD_PLACE))[0]
    half = scale * np.array([1, BOARD_HALF[1] / BOARD_HALF[0]]) * rng.uniform(0.85, 1.05, 2)
    sheet = write(text, *BOARD_PIXELS, hand, _ink(rng), rng)
    drawing.sheet(_corners(middle, half, rng), sheet)


def _draw_cards(
    drawing: Drawing, values: Sequence[int], rng: np.random.Generator
) -> list[np.ndarray]:
    """Three cards from the left to the right; returns their places."""
    places = [
        np.array([rng.uniform(ROWS[0] - 0.01, ROWS[-1] + 0.01), y + rng.uniform(-0.01, 0.01)])
        for y in COLUMNS
    ]
    hand, ink = _hand(rng), _ink(rng)
    for xy, value in sorted(zip(places, values, strict=True), key=lambda row: row[0][0]):
        sheet = write(str(value), *CARD_PIXELS, hand, ink, rng, (243, 242, 238))
        drawing.card(xy, rng.uniform(-0.15, 0.15), rng.uniform(*SIZES), sheet)
    return places


def _chosen(rng: np.random.Generator, count: int, by: str | None) -> list[str]:
    """Names of different toys."""
    part = {None: None, "colour": 0, "shape": 1}[by]
    while True:
        names = rng.choice(TOYS_OF_ALL, count, replace=False).tolist()
        if part is None or len({name.split()[part] for name in names}) == count:
            return names


def _corners(middle: np.ndarray, half: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(4, 2) corners of a sheet, in pixels, turned a little and not quite square."""
    turn = rng.uniform(-0.05, 0.05)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    return middle + square @ rotation + rng.uniform(-0.6, 0.6, (4, 2))


def _pixel(xy: np.ndarray) -> str:
    u, v = np.round(pixel_of(np.array([*xy, 0.0]))).astype(int)
    return f"{u:02d}, {v:02d}"


def _hand(rng: np.random.Generator) -> str:
    return list(HANDS)[rng.integers(len(HANDS))]


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    return INKS[rng.integers(len(INKS))]
