"""How well the EMA weights do on samples that training never sees."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.training.mesh import batch_sharding, replicated, to_devices
from bridgeact_jax.training.state import TrainState
from bridgeact_jax.training.validation import STREAM
from bridgeact_jax.vla.act import sample
from bridgeact_jax.vla.batches import Sampler, Samples
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.step import chunk_of, count, draw, figures_of, losses, read


class Validation:
    """The figures of a state on the same samples each time it is called; nothing is withheld."""

    def __init__(
        self,
        sampler: Sampler,
        model: VlaConfig,
        config: ml_collections.ConfigDict,
        mesh: Mesh,
    ):
        """`sampler` draws held-out samples alone, `config.validation.windows` of them rounded up to
        whole batches; each process gathers its devices' part.
        """
        parts = -(-config.validation.windows // config.batch_size)
        rows = sampler.rows(config.seed, STREAM, parts * config.batch_size)
        own = np.array_split(rows, jax.process_count())[jax.process_index()]
        self._parts = [sampler.gather(part) for part in np.split(own, parts)]
        self._place = batch_sharding(mesh)
        self._score = jax.jit(make_score(model, config), out_shardings=replicated(mesh))
        self._figures = jax.jit(lambda sums, counts: figures_of(sums, counts, config))

    def __call__(self, state: TrainState) -> dict[str, float]:
        """What training logs, of held-out samples, with "validation_" before it; and
        "validation_position_mm", the mean distance of sampled chunks' positions from the truth.
        """
        added = None
        for number, part in enumerate(self._parts):
            samples = to_devices(part, self._place)
            sums = self._score(state.ema, state.normalizer, samples, np.int32(number))
            added = sums if added is None else jax.tree.map(jnp.add, added, sums)
        sums, counts, off, rows = added
        figures = {**self._figures(sums, counts), "position_mm": 1e3 * off / rows}
        return {f"validation_{name}": float(x) for name, x in figures.items() if np.isfinite(x)}


def make_score(model: VlaConfig, config: ml_collections.ConfigDict):
    """`(params, normalizer, samples, number) -> (Sums, Counts, metres, rows)` of the `number`th
    part, a pure function. metres: distances of sampled chunks' positions, added over `rows`.
    """

    def score(params: dict, normalizer: Normalizer, samples: Samples, number: jax.Array) -> tuple:
        batch = len(samples.robot)
        key = jax.random.fold_in(jax.random.key(config.seed), STREAM)
        draw_key, sample_key = jax.random.split(jax.random.fold_in(key, number))
        draws = draw(draw_key, batch, model, config)
        sums = losses(params, normalizer, draws, samples, model, config)
        if config.robot_share == 0:
            return sums, count(samples, config), jnp.zeros(()), jnp.zeros(())
        _, conditions = read(params, samples, model)
        keys = jax.random.split(sample_key, batch)
        chunks = sample(model, params, normalizer, conditions, keys)
        off = jnp.linalg.norm((chunks - chunk_of(samples))[..., :3], axis=-1)
        inside = samples.future_mask & samples.robot[:, None]
        distance = jnp.sum(jnp.where(inside, off, 0.0))
        return sums, count(samples, config), distance, jnp.sum(inside)

    return score
