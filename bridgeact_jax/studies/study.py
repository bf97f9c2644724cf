"""What a study is: a question, cells that are run, and what is said of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.studies.experts import Training
from bridgeact_jax.studies.records import Row, Value

POLICIES = ("spline", "expert_blind", "expert")


class Scope(NamedTuple):
    """What a study is run with.

    tasks: that are evaluated, `episodes` of each. seeds: of the trainings, or of the episodes where
    nothing is trained. expert, blind: checkpoints of the expert and of the one that sees no cloud.
    chatvla: the folder of ChatVLA-2's data and trainings, for the studies of it.
    """

    tasks: tuple[str, ...]
    episodes: int
    seeds: tuple[int, ...]
    quick: bool
    expert: str | None = None
    blind: str | None = None
    chatvla: str | None = None

    def checkpoint(self, policy: str) -> str | None:
        """What a policy acts from."""
        return {"spline": None, "expert_blind": self.blind}.get(policy, self.expert)


class Cell(NamedTuple):
    """A condition that is evaluated; `training` makes its checkpoint where a study trains.

    `labels` are settings that the condition does not tell. `measure` finds what else the CSV should
    have of the condition, {column: value}.
    """

    condition: Condition
    labels: Mapping[str, Value] = {}
    training: Training | None = None
    measure: Callable[[Condition], dict[str, float]] | None = None


class Panel(NamedTuple):
    """A curve for each value of the column `series` against the column `x`.

    `only` says which rows; a tuple allows any of its values. `value` is "successes" or another
    count, or points, else a measured column, averaged. `paper` holds the paper's figures, as
    shares, at values of `x`.
    """

    title: str
    x: str
    label: str
    series: str
    only: Mapping[str, Value | tuple[Value, ...]] = {}
    value: str = "successes"
    paper: Mapping[Value, float] = {}


class Claim(NamedTuple):
    """What a paper says, its figure, ours, and whether it holds here."""

    says: str
    paper: str
    here: str
    verdict: str


class Size(NamedTuple):
    """Words of a suite, episodes of each task, seeds."""

    suite: str
    episodes: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """A study by its `name`.

    Attributes:
      question: what is asked, as a sentence.
      fair: how the comparison is kept fair.
      paper: what the paper reports.
      cells: what is run in a scope.
      panels: what is drawn and tabulated.
      findings: from all rows, what came out, as sentences with the numbers filled in.
      claims: from all rows, the paper's claims with what came out; none where it makes none.
      full, quick: its sizes.
      trains: whether it trains its experts itself.
      prepare: makes what `Scope.chatvla` does not hold yet, by so many processes; None for studies
        that do not need it.
    """

    name: str
    question: str
    fair: str
    paper: str
    cells: Callable[[Scope], list[Cell]] = field(repr=False)
    panels: tuple[Panel, ...]
    findings: Callable[[Sequence[Row]], list[str]] = field(repr=False)
    full: Size
    quick: Size
    claims: Callable[[Sequence[Row]], list[Claim]] = field(default=lambda rows: [], repr=False)
    trains: bool = False
    prepare: Callable[[Scope, int], None] | None = field(default=None, repr=False)


def centimetres(metres: float) -> str:
    """A length for a sentence."""
    return f"{100 * metres:g} cm"


def nearest_value(present: Sequence[float], wanted: float) -> float:
    """The value that is there and nearest to the one wanted."""
    return min(present, key=lambda value: abs(value - wanted))
