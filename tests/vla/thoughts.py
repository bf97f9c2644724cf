"""Thoughts for tests: any that the templates can write."""

from hypothesis import strategies as st

from bridgeact_jax.sim.equations import equations
from bridgeact_jax.sim.tasks.math_matching import POSITIONS
from bridgeact_jax.sim.tasks.toy_placement import RELATIONS, TOYS_OF_ALL
from bridgeact_jax.vla.reasoning import HEIGHTS, MOST_TOYS, MathWords, Place, ToyWords

_EQUATIONS = [
    one for steps in (1, 2) for world in (False, True)
    for one in equations(steps, open_world=world)
]  # fmt: skip
_pixels = st.tuples(st.integers(0, 95), st.integers(0, 63))
_moves = st.lists(st.tuples(st.integers(*HEIGHTS), st.booleans()), min_size=1, max_size=4)
places = st.lists(st.builds(Place, _pixels, _moves.map(tuple)), min_size=1, max_size=4).map(tuple)
numbers = st.integers(0, 99)
equations_worked_out = st.sampled_from(_EQUATIONS)


@st.composite
def math_words(draw):
    """What may be said of a game, also if it is not so."""
    equation = draw(equations_worked_out)
    return MathWords(
        equation.text, equation.steps, draw(st.tuples(numbers, numbers, numbers)), draw(numbers),
        draw(st.sampled_from(POSITIONS)), draw(places),
    )


_toys = st.sampled_from(TOYS_OF_ALL)
toy_words = st.builds(
    ToyWords, st.lists(_toys, min_size=2, max_size=MOST_TOYS).map(tuple), _toys,
    st.sampled_from(list(RELATIONS)), _toys, places,
)
thoughts = math_words() | toy_words
