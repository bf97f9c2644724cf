"""From a raw batch to an update of the state: loss, gradient, optimiser. All jitted."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridgeact_jax.datasets.loader import Windows
from bridgeact_jax.models import diffusion
from bridgeact_jax.models.action_expert import ActionExpert, ExpertConfig
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import ACTION_DIM
from bridgeact_jax.training.example import Example, make_example
from bridgeact_jax.training.state import TrainState, make_optimizer


class Draws(NamedTuple):
    """A batch's random numbers, of which an example's own do not depend on its micro-batch.

    noise (B, D, H, 10) standard normal and step (B, D) of the diffusion, for D noise draws;
    guided (B,) and seen (B, 1) bool: whether the guidance and the cloud are shown.
    """

    noise: jax.Array
    step: jax.Array
    guided: jax.Array
    seen: jax.Array


class Sums(NamedTuple):
    """Added over the numbers of a batch that count, and how many they are, all (D,) by dataset.

    squared: of the normalised chunk, over `numbers`. distance: metres, over `rows`.
    """

    squared: jax.Array
    numbers: jax.Array
    distance: jax.Array
    rows: jax.Array

    def figures(self, datasets: tuple[str, ...]) -> dict[str, jax.Array]:
        """The means, by the names they are logged under; NaN for a dataset that was not drawn."""
        figures = {
            "loss": jnp.sum(self.squared) / jnp.maximum(jnp.sum(self.numbers), 1),
            "position_error_mm": 1e3 * jnp.sum(self.distance) / jnp.maximum(jnp.sum(self.rows), 1),
        }
        if len(datasets) > 1:
            by_dataset = self.squared / self.numbers
            figures |= {f"loss/{name}": by_dataset[i] for i, name in enumerate(datasets)}
        return figures


def draw(
    key: jax.Array, batch: int, model: ExpertConfig, config: ml_collections.ConfigDict
) -> Draws:
    """The random numbers of the loss of `batch` examples."""
    noise_key, step_key, guidance_key, cloud_key = jax.random.split(key, 4)
    draws = (batch, config.noise_draws)
    return Draws(
        jax.random.normal(noise_key, (*draws, model.horizon, ACTION_DIM)),
        _steps(step_key, draws, model, config),
        jax.random.uniform(guidance_key, (batch,)) >= config.dropout.guidance,
        jax.random.uniform(cloud_key, (batch, 1)) >= config.dropout.cloud,
    )


def _steps(
    key: jax.Array, shape: tuple, model: ExpertConfig, config: ml_collections.ConfigDict
) -> jax.Array:
    """Diffusion steps: uniform, but for a share at the last one, where sampling starts."""
    key, first_key = jax.random.split(key)
    first = jax.random.uniform(first_key, shape) < config.first_step_share
    steps = jax.random.randint(key, shape, 0, model.train_steps)
    return jnp.where(first, model.train_steps - 1, steps)


def diffusion_loss(
    params: dict,
    draws: Draws,
    example: Example,
    dataset: jax.Array,
    normalizer: Normalizer,
    model: ExpertConfig,
    config: ml_collections.ConfigDict,
    datasets: int = 1,
) -> tuple[jax.Array, Sums]:
    """Squared error of the predicted clean chunk, summed over valid numbers, plus, by
    `config.focus_weight`, that of what the cloud was found to be meant at; and what to log.

    Each observation is encoded once and denoised against its noise draws. `dataset` (B,) int32 is
    where an example comes from, of so many `datasets`.
    """
    expert = ActionExpert(model)
    clean = normalizer.normalize(example.chunk)
    observation = example.observation
    if config.use_cloud:
        observation = observation._replace(point_mask=observation.point_mask & draws.seen)
    condition, found = expert.apply(
        {"params": params},
        observation,
        draws.guided,
        use_cloud=config.use_cloud,
        method=ActionExpert.encode,
    )

    focus_error = 0.0
    if config.use_cloud:
        seen = jnp.any(observation.point_mask, axis=1) & draws.guided
        off = jnp.sum((found - example.true_focus) ** 2, axis=(0, 2))
        focus_error = config.focus_weight * jnp.sum(jnp.where(seen, off, 0.0))
    condition, clean, mask, dataset = (
        jnp.repeat(x, config.noise_draws, axis=0)
        for x in (condition, clean, example.mask, dataset)
    )
    noise, step = draws.noise.reshape(clean.shape), draws.step.reshape(-1)
    noisy = diffusion.add_noise(clean, noise, step, model.train_steps)
    predicted = expert.apply(
        {"params": params}, condition, noisy, step, method=ActionExpert.denoise
    )
    squared = jnp.sum(jnp.where(mask, (predicted - clean) ** 2, 0.0), axis=(1, 2))
    error = (predicted[..., :3] - clean[..., :3]) * normalizer.scale[:3]
    inside = mask[..., 0]
    distance = jnp.sum(jnp.where(inside, jnp.linalg.norm(error, axis=-1), 0.0), axis=1)
    columns = squared, jnp.sum(mask, axis=(1, 2)), distance, jnp.sum(inside, axis=1)
    member = dataset[:, None] == jnp.arange(datasets)
    sums = Sums(*(jnp.sum(jnp.where(member, x[:, None], 0), axis=0) for x in columns))
    return jnp.sum(squared) + focus_error, sums


def make_train_step(
    model: ExpertConfig,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    datasets: tuple[str, ...] = ("the store",),
):
    """`(state, windows) -> (state, figures)`, a pure function; randomness follows from the step.

    A step that is not finite changes nothing but the count, and figures["finite"] says so.
    """
    optimizer = make_optimizer(config)

    def train_step(state: TrainState, windows: Windows) -> tuple[TrainState, dict]:
        batch = windows.steps.shape[0]
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        example_key, loss_key = jax.random.split(key)
        whole = (
            jax.random.split(example_key, batch), draw(loss_key, batch, model, config), windows
        )  # fmt: skip

        def gradient_of(micro):
            keys, draws, windows = micro
            example = jax.vmap(lambda k, w: make_example(k, w, model, config))(keys, windows)
            rest = draws, example, windows.dataset, state.normalizer, model, config, len(datasets)
            return jax.grad(diffusion_loss, has_aux=True)(state.params, *rest)

        gradient, sums = add_up(gradient_of, whole, mesh, config.accumulate)
        numbers = jnp.maximum(jnp.sum(sums.numbers), 1)
        gradient = jax.tree.map(lambda g: g / numbers, gradient)
        return updated(optimizer, state, gradient, sums.figures(datasets), config)

    return train_step


def add_up(gradient_of: Callable, whole, mesh: Mesh, accumulate: int):
    """The sum of `gradient_of(micro)` over the parts `micro` of a batch `whole` (B, ...).

    Every device of `mesh` adds up its own part of the batch in float32, taken in `accumulate`
    micro-batches; then one sum over the devices is all that they exchange of it.
    """
    of_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    micro_of_device = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))
    of_devices = jax.vmap(gradient_of)

    def split(x):  # (B, ...) to (micro-batches, devices, ...), so that nothing moves
        x = x.reshape(mesh.size, accumulate, -1, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(x, micro_of_device)

    def add(total, micro):
        return jax.tree.map(jnp.add, total, of_devices(micro)), None

    parts = jax.tree.map(split, whole)
    shapes = jax.eval_shape(of_devices, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zeros = jax.lax.with_sharding_constraint(zeros, of_device)
    added, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), added)


def updated(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradient: dict,
    figures: dict[str, jax.Array],
    config: ml_collections.ConfigDict,
) -> tuple[TrainState, dict]:
    """The next state, and the figures with "gradient_norm" and "finite".

    Where the loss, the gradient or what becomes of the parameters is not finite, the state stays as
    it is but for the count.
    """
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    count = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.optimizer.ema_decay, (1 + count) / (10 + count))
    ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, params)
    figures = {**figures, "gradient_norm": optax.global_norm(gradient)}
    finite = jnp.isfinite(figures["loss"] + optax.global_norm((gradient, params)))
    params, ema, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, ema, opt_state),
        (state.params, state.ema, state.opt_state),
    )
    new = TrainState(state.step + 1, params, ema, opt_state, state.normalizer)
    return new, {**figures, "finite": finite}
