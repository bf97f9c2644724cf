"""What is thought before a robot moves, as text: what is seen, what follows from it, and waypoints.

    on the whiteboard is 14 - 6. 14 - 6 = 8. there are 8 (left), 13 (middle), 2 (right).
    i should pick 8 from left. over 31, 22: 145 open, 045 close, 245 close.

    there are a red cube, a blue can and a green disc. i should pick the red cube and place it left
    of the blue can. over 31, 22: 145 open, 030 close, 230 close. over 50, 20: 190 close, 035 open.

"over U, V" is the place of the table that is seen at column U and row V of the picture of
`sim.front_camera`, and what follows are heights of the tool above the table there, in millimetres,
with what the gripper then does. The tool points down, as in all plans of these worlds. A small
model learns a pixel of what it sees more easily than metres: it is a place in its own input, two
digits each, and what rounding to a pixel costs (3 mm) is little beside what a grasp forgives.

The parser takes exactly what the templates can write, and nothing else.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.protocol import MAX_WAYPOINTS
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.front_camera import SIZE, on_table, pixel_of
from bridgeact_jax.sim.tasks.base import Step
from bridgeact_jax.sim.tasks.math_matching import POSITIONS
from bridgeact_jax.sim.tasks.reading import DOWN
from bridgeact_jax.sim.tasks.toy_placement import RELATIONS, TOYS_OF_ALL

HEIGHTS = (5, 500)  # millimetres, the lowest and the highest of a waypoint
MOST_TOYS = 5


class ReasoningError(Exception):
    """A text that is no reasoning; the message is one sentence that says what is wrong."""


class Place(NamedTuple):
    """Waypoints over one place: pixel (column, row) and (height mm, gripper open) of each."""

    pixel: tuple[int, int]
    moves: tuple[tuple[int, bool], ...]


class MathWords(NamedTuple):
    """A math matching game: "14 - 6", ("14 - 6 = 8",), the cards from the left, the choice."""

    equation: str
    steps: tuple[str, ...]
    cards: tuple[int, int, int]
    pick: int
    position: str
    places: tuple[Place, ...]


class ToyWords(NamedTuple):
    """A toy placement: the toys from the left, "red cube", one of `RELATIONS`, "blue can"."""

    toys: tuple[str, ...]
    toy: str
    relation: str
    reference: str
    places: tuple[Place, ...]


Words = MathWords | ToyWords

NUMBER = r"(?:0|[1-9]\d?)"
EQUATION = rf"{NUMBER}(?: [-+×] {NUMBER}){{1,2}}"
STEP = rf"{NUMBER} [-+×] {NUMBER} = {NUMBER}"
_TOY = f"(?:{'|'.join(TOYS_OF_ALL)})"
_A_TOY = rf"an? {_TOY}"
_MOVE = r"\d{3} (?:open|close)"
_PLACE = rf"over \d\d, \d\d: {_MOVE}(?:, {_MOVE})*\."

# Sentences, without what stands between them.
BOARD = re.compile(rf"on the whiteboard is ({EQUATION})\.")
STEPS = re.compile(rf"({STEP})\.")
CARDS = re.compile(
    "there are " + ", ".join(rf"({NUMBER}) \({position}\)" for position in POSITIONS) + r"\."
)
CHOICE = re.compile(rf"i should pick ({NUMBER}) from ({'|'.join(POSITIONS)})\.")
TOYS = re.compile(
    rf"there are ({_A_TOY}(?:, {_A_TOY}){{0,{MOST_TOYS - 2}}} and {_A_TOY})\."
)
INTENT = re.compile(
    rf"i should pick the ({_TOY}) and place it ({'|'.join(RELATIONS)}) the ({_TOY})\."
)
PLACE = re.compile(_PLACE)
_PLACES = rf"(?P<places>{_PLACE}(?: {_PLACE})*)"
_MATH = re.compile(
    rf"{BOARD.pattern} (?P<steps>{STEP}\.(?: {STEP}\.)?) {CARDS.pattern} {CHOICE.pattern} {_PLACES}"
)
_PLACEMENT = re.compile(f"{TOYS.pattern} {INTENT.pattern} {_PLACES}")


def write(words: Words) -> str:
    """The text of a thought. Its inverse is `parse`."""
    if isinstance(words, MathWords):
        cards = ", ".join(
            f"{n} ({position})" for n, position in zip(words.cards, POSITIONS, strict=True)
        )
        sentences = [
            f"on the whiteboard is {words.equation}", *words.steps, f"there are {cards}",
            f"i should pick {words.pick} from {words.position}",
        ]
    else:
        sentences = [
            f"there are {listed(words.toys)}",
            f"i should pick the {words.toy} and place it {words.relation} the {words.reference}",
        ]
    for (u, v), moves in words.places:
        heights = ", ".join(
            f"{height:03d} {'open' if opened else 'close'}" for height, opened in moves
        )
        sentences.append(f"over {u:02d}, {v:02d}: {heights}")
    return " ".join(f"{sentence}." for sentence in sentences)


def parse(text: str) -> Words:
    """The thought that `write` writes as this text. Raises ReasoningError for any other text."""
    if found := _MATH.fullmatch(text):
        equation, _, *cards, pick, position, places = found.groups()
        steps = tuple(STEPS.findall(found["steps"]))
        words = MathWords(
            equation, steps, tuple(map(int, cards)), int(pick), position, parse_places(places)
        )
        if len(steps) != len(re.findall(" [-+×] ", equation)):
            raise ReasoningError(f"'{equation}' is not worked out in as many steps as it has signs")
    elif found := _PLACEMENT.fullmatch(text):
        toys, toy, relation, reference, places = found.groups()
        named = tuple(re.findall(_TOY, toys))
        words = ToyWords(named, toy, relation, reference, parse_places(places))
    else:
        raise ReasoningError(f"not one of the forms of a thought: '{text[:60]}'")
    if write(words) != text:  # "a orange cube"
        raise ReasoningError(f"not as it would be written: '{text[:60]}'")
    return words


def parse_waypoints(text: str) -> Waypoints:
    """The waypoints of a thought, NumPy without padding, base frame, without the tool's pose now.

    Raises ReasoningError for what is not exactly a thought.
    """
    return waypoints_of(parse(text).places)


def parse_places(text: str) -> tuple[Place, ...]:
    """The places of the sentences with waypoints, wherever in a text they stand; one or more.

    Raises ReasoningError if there is none, or for numbers that cannot be meant.
    """
    places = []
    for sentence in PLACE.findall(text):
        u, v = map(int, re.findall(r"\d\d(?=[,:])", sentence))
        if u >= SIZE[1] or v >= SIZE[0]:
            raise ReasoningError(f"pixel {u}, {v} is outside of the {SIZE[1]} x {SIZE[0]} picture")
        moves = re.findall(r"(\d{3}) (open|close)", sentence)
        places.append(Place((u, v), tuple((int(mm), word == "open") for mm, word in moves)))
    if not places:
        raise ReasoningError(f"no waypoints: '{text[:60]}'")
    heights = [height for place in places for height, _ in place.moves]
    if not HEIGHTS[0] <= min(heights) <= max(heights) <= HEIGHTS[1]:
        raise ReasoningError(f"a height is not from {HEIGHTS[0]} to {HEIGHTS[1]} mm")
    if len(heights) > MAX_WAYPOINTS + 1:
        raise ReasoningError(f"{len(heights)} waypoints: must be at most {MAX_WAYPOINTS + 1}")
    return tuple(places)


def waypoints_of(places: Sequence[Place]) -> Waypoints:
    """The waypoints over some places: base frame, the tool pointing down."""
    position, gripper = [], []
    for pixel, moves in places:
        spot = on_table(np.array(pixel))
        for height, opened in moves:
            position.append([*spot, height / 1000])
            gripper.append(float(opened))
    count = len(gripper)
    return Waypoints(
        np.array(position, np.float32),
        np.tile(DOWN.astype(np.float32), (count, 1)),
        np.array(gripper, np.float32),
        np.int32(count),
    )


def places_of(plan: Sequence[Step]) -> tuple[Place, ...]:
    """A plan whose tool points down, as places of the picture, each as long as it stays there."""
    places: list[Place] = []
    for step in plan:
        u, v = np.round(pixel_of(np.array([*step.position[:2], 0.0]))).astype(int).tolist()
        move = round(1000 * float(step.position[2])), bool(is_open(step.gripper))
        if places and places[-1].pixel == (u, v):
            places[-1] = Place((u, v), (*places[-1].moves, move))
        else:
            places.append(Place((u, v), (move,)))
    return tuple(places)


def words_of(env: Environment) -> Words:
    """What a reader without fault thinks at the start of an episode of a world that is read."""
    facts, places = env.layout.facts, places_of(env.plan())
    if "equation" in facts:
        return MathWords(
            facts["equation"], tuple(facts["steps"]), tuple(facts["cards"].values()),
            facts["answer"], facts["pick"], places,
        )
    return ToyWords(
        tuple(facts["toys"]), facts["toy"], facts["relation"], facts["reference"], places
    )


def truth(env: Environment) -> str:
    """`words_of` as text."""
    return write(words_of(env))


def listed(toys: Sequence[str]) -> str:
    """Toys in a sentence: "a red cube, an orange can and a green disc"."""
    *first, last = [f"{'an' if toy[0] in 'aeiou' else 'a'} {toy}" for toy in toys]
    return f"{', '.join(first)} and {last}" if first else last
