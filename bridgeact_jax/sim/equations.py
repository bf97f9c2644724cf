"""Equations that are worked out from left to right, and which of them a robot is ever shown.

One step: 0 to 18 plus or minus 0 to 9, or 1 to 9 times 1 to 9. Two steps: numbers from 1 to 9, each
step plus or minus. No result is negative.
"""

import functools
import itertools
from typing import NamedTuple

from bridgeact_jax.sim.splits import is_held_out

SIGNS = ("+", "-", "×")
OPEN_SHARE = 0.5  # of the equations, that no robot's training data holds
LARGEST = 81  # result of any equation


class Equation(NamedTuple):
    """Two or three numbers and the signs between them."""

    numbers: tuple[int, ...]
    signs: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it is written: "14 - 6"."""
        rest = zip(self.signs, self.numbers[1:], strict=True)
        return " ".join([str(self.numbers[0]), *(f"{sign} {number}" for sign, number in rest)])

    @property
    def results(self) -> tuple[int, ...]:
        """What each step comes to; the last is the answer."""
        so_far, found = self.numbers[0], []
        for sign, number in zip(self.signs, self.numbers[1:], strict=True):
            so_far = {"+": so_far + number, "-": so_far - number, "×": so_far * number}[sign]
            found.append(so_far)
        return tuple(found)

    @property
    def answer(self) -> int:
        """The last step's result."""
        return self.results[-1]

    @property
    def steps(self) -> tuple[str, ...]:
        """Each step worked out: "14 - 6 = 8"."""
        before = (self.numbers[0], *self.results)
        rows = zip(before, self.signs, self.numbers[1:], self.results, strict=False)
        return tuple(f"{a} {sign} {b} = {c}" for a, sign, b, c in rows)

    @property
    def is_open(self) -> bool:
        """Whether it belongs to the open world: to image-text data, never to a robot's training."""
        return is_held_out(f"equation/{self.text}", OPEN_SHARE)


@functools.cache
def equations(steps: int, *, open_world: bool) -> tuple[Equation, ...]:
    """All equations of one or two steps of a world, in a fixed order."""
    if steps == 1:
        sums = itertools.product(range(19), range(10), "+-")
        products = itertools.product(range(1, 10), range(1, 10), "×")
        found = [Equation((a, b), (sign,)) for a, b, sign in (*sums, *products)]
    else:
        digits = range(1, 10)
        found = [
            Equation(numbers, signs)
            for numbers in itertools.product(digits, digits, digits)
            for signs in itertools.product("+-", "+-")
        ]
    return tuple(x for x in found if min(x.results) >= 0 and x.is_open == open_world)
