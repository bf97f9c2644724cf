"""How well the EMA weights do on episodes that training never sees."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from bridgeact_jax.datasets.loader import Windows, WindowSampler
from bridgeact_jax.models.action_expert import ExpertConfig, sample_chunks
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.training.example import make_example
from bridgeact_jax.training.mesh import batch_sharding, replicated, to_devices
from bridgeact_jax.training.state import TrainState
from bridgeact_jax.training.step import diffusion_loss, draw

STREAM = np.iinfo(np.int32).max - 1  # a step that no training reaches


def held_out(sampler: WindowSampler, share: float, seed: int) -> np.ndarray:
    """(E,) bool: the episodes kept from training, over all stores in turn.

    Of each store the nearest whole number to `share` of its episodes, never all of them, drawn by
    (seed, store).
    """
    chosen = np.zeros(len(sampler.lengths), bool)
    for store, first in enumerate(sampler.first_episode[:-1]):
        own = np.arange(first, sampler.first_episode[store + 1])
        own = own[sampler.lengths[own] > 1]
        count = min(round(share * len(own)), len(own) - 1)
        chosen[np.random.default_rng((seed, store)).permutation(own)[:count]] = True
    return chosen


class Validation:
    """The figures of a state on the same windows each time it is called; nothing is withheld."""

    def __init__(
        self,
        sampler: WindowSampler,
        model: ExpertConfig,
        config: ml_collections.ConfigDict,
        mesh: Mesh,
    ):
        """`sampler` draws held-out windows alone; each process gathers its devices' part."""
        per_device = -(-config.validation.windows // mesh.size)
        rows = sampler.rows(config.seed, STREAM, per_device * mesh.size)
        own = np.array_split(rows, jax.process_count())[jax.process_index()]
        self._windows = sampler.gather(own)
        self._place = batch_sharding(mesh)
        self._score = jax.jit(make_score(model, config), out_shardings=replicated(mesh))

    def __call__(self, state: TrainState) -> dict[str, float]:
        """`validation_loss`, and `validation_position_mm` of sampled chunks."""
        windows = to_devices(self._windows, self._place)
        figures = jax.device_get(self._score(state.ema, state.normalizer, windows))
        return {f"validation_{name}": float(value) for name, value in figures.items()}


def make_score(model: ExpertConfig, config: ml_collections.ConfigDict):
    """`(params, normalizer, windows) -> {"loss", "position_mm"}`, a pure function.

    loss: as in training. position_mm: mean distance of sampled chunks' positions from the truth.
    """

    def score(params: dict, normalizer: Normalizer, windows: Windows) -> dict[str, jax.Array]:
        batch = windows.steps.shape[0]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), STREAM), 3)
        example = jax.vmap(lambda k, w: make_example(k, w, model, config))(
            jax.random.split(keys[0], batch), windows
        )
        draws = draw(keys[1], batch, model, config)
        draws = draws._replace(
            guided=jnp.full_like(draws.guided, config.dropout.guidance < 1),
            seen=jnp.ones_like(draws.seen),
        )
        _, sums = diffusion_loss(
            params, draws, example, jnp.zeros(batch, jnp.int32), normalizer, model, config
        )
        chunks = sample_chunks(
            model,
            params,
            normalizer,
            example.observation,
            jax.random.split(keys[2], batch),
            use_cloud=config.use_cloud,
            use_guidance=config.dropout.guidance < 1,
        )
        inside = example.mask[..., 0]
        off = jnp.linalg.norm(chunks[..., :3] - example.chunk[..., :3], axis=-1)
        distance = jnp.sum(jnp.where(inside, off, 0.0)) / jnp.maximum(jnp.sum(inside), 1)
        return {"loss": sums.figures(("",))["loss"], "position_mm": 1e3 * distance}

    return score
