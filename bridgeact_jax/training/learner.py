"""What the training loop trains: a model with its data, as the parts it puts together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from bridgeact_jax.training.state import TrainState


class Sampler(Protocol):
    """Where batches come from: each a pure function of (seed, step)."""

    def rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """(batch_size,) the samples of a step."""
        ...

    def gather(self, rows: np.ndarray) -> Any:
        """A pytree of arrays (B, ...): the samples `rows` (B,)."""
        ...

    def locate(self, rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Dataset, episode and frame of each of `rows` (B,), to name what is broken."""
        ...


@dataclass(frozen=True, eq=False)
class Learner:
    """A model with its data.

    Attributes:
      config: frozen and checked; the loop reads `seed`, `steps`, `batch_size` and what says how
        often things happen.
      label: what the progress line calls it. notes: lines that the run opens with.
      source: what a checkpoint says of the data and of "init", as JSON; a run is only resumed if it
        has the same.
      sampler: of the stream. finite: (B,) bool, which samples of a gathered batch are finite.
      mesh: batches are split over all of its axes.
      shapes, shardings: of the state. first: the state that a new run starts from.
      step: `(state, batch) -> (state, figures)`, pure; figures hold "loss" and "finite".
      validate: figures of a state, "validation_loss" among them; None where nothing is held out.
      begin: called with the workdir when the run starts, in the first process.
    """

    config: ml_collections.FrozenConfigDict
    label: str
    notes: tuple[str, ...]
    source: dict[str, Any]
    sampler: Sampler
    finite: Callable[[Any], np.ndarray]
    mesh: Mesh
    shapes: TrainState
    shardings: TrainState
    first: Callable[[], TrainState]
    step: Callable[[TrainState, Any], tuple[TrainState, dict]]
    validate: Callable[[TrainState], dict[str, float]] | None
    begin: Callable[[epath.Path], None] = lambda workdir: None
