"""What a model thought before the arm moved, for the record of an episode of a world that is read.
"""

from typing import NamedTuple

from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.vla.scoring import points, score


class Said(NamedTuple):
    """The words that count, and how many texts of the model were no thought."""

    words: str = ""
    unparsable: int = 0


def record_of(said: Said, env: Environment) -> dict:
    """What the record of the episode that `env` has played says of it, with its points."""
    found = score(said.words, env.layout.facts, env.success)
    return {**said._asdict(), "points": points(found)}
