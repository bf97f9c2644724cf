"""From a batch of samples to an update of the state: the three losses, and what is frozen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from bridgeact_jax.models import diffusion
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import ACTION_DIM, Proprioception, action_chunk
from bridgeact_jax.training.state import TrainState, make_optimizer
from bridgeact_jax.training.step import add_up, updated
from bridgeact_jax.vla.batches import Samples
from bridgeact_jax.vla.head import Conditions, arm_state
from bridgeact_jax.vla.model import ChatVla, Texts
from bridgeact_jax.vla.sizes import VlaConfig

LOSSES = ("action", "reasoning", "imagetext")


class Draws(NamedTuple):
    """A batch's random numbers: noise (B, D, H, 10) standard normal and step (B, D) of the
    diffusion, for D noise draws.
    """

    noise: jax.Array
    step: jax.Array


class Sums(NamedTuple):
    """Added over what counts in a batch, () each.

    action: squared error of the normalised chunk. distance: of its positions, metres. reasoning and
    imagetext: cross-entropy, nats; *_right: tokens that were likeliest.
    """

    action: jax.Array
    distance: jax.Array
    reasoning: jax.Array
    reasoning_right: jax.Array
    imagetext: jax.Array
    imagetext_right: jax.Array


class Counts(NamedTuple):
    """How much counts in a batch, () each: numbers and rows of chunks, tokens of answers."""

    action: jax.Array
    distance: jax.Array
    reasoning: jax.Array
    imagetext: jax.Array


def draw(
    key: jax.Array, batch: int, model: VlaConfig, config: ml_collections.ConfigDict
) -> Draws:
    """The random numbers of the loss of `batch` samples."""
    noise_key, step_key = jax.random.split(key)
    draws = (batch, config.noise_draws)
    return Draws(
        jax.random.normal(noise_key, (*draws, model.horizon, ACTION_DIM)),
        jax.random.randint(step_key, draws, 0, model.train_steps),
    )


def count(samples: Samples, config: ml_collections.ConfigDict) -> Counts:
    """What of the samples each loss is over: image-text counts in no action loss."""
    rows = config.noise_draws * jnp.sum(samples.future_mask & samples.robot[:, None])
    tokens = samples.length - samples.prompt_length
    return Counts(
        ACTION_DIM * rows,
        rows,
        jnp.sum(jnp.where(samples.robot, tokens, 0)),
        jnp.sum(jnp.where(samples.robot, 0, tokens)),
    )


def chunk_of(samples: Samples) -> jax.Array:
    """(B, H, 10) the samples' chunks, metres."""
    future, now = samples.future, samples.past[:, -1]
    return jax.vmap(action_chunk)(
        future[..., :3], future[..., 3:7], future[..., 7], now[:, :3], now[:, 3:]
    )


def state_of(samples: Samples) -> jax.Array:
    """(B, STATE) of the arm."""
    past = samples.past
    return jax.vmap(arm_state)(
        Proprioception(past[..., :3], past[..., 3:], samples.command, samples.gripper_width)
    )


def read(
    params: dict, samples: Samples, model: VlaConfig
) -> tuple[jax.Array, Conditions]:
    """Features (B, patches + T, D), and what a chunk is denoised against."""
    vla, variables = ChatVla(model), {"params": params}
    texts = Texts(samples.tokens, samples.prompt_length, samples.length)
    features, _ = vla.apply(
        variables, samples.pictures, samples.tokens, samples.robot, method=ChatVla.read
    )
    state = state_of(samples)
    return features, vla.apply(variables, features, texts, state, method=ChatVla.condition)


def losses(
    params: dict,
    normalizer: Normalizer,
    draws: Draws,
    samples: Samples,
    model: VlaConfig,
    config: ml_collections.ConfigDict,
) -> Sums:
    """The three losses, summed over the samples. Each is read once, and its chunk denoised as often
    as there are draws.
    """
    features, conditions = read(params, samples, model)
    spoken = _speaking(params, features, samples, model)
    if config.robot_share == 0:
        return Sums(jnp.zeros(()), jnp.zeros(()), *spoken)
    return Sums(*_acting(params, normalizer, draws, samples, conditions, model, config), *spoken)


def _speaking(
    params: dict, features: jax.Array, samples: Samples, model: VlaConfig
) -> tuple[jax.Array, ...]:
    """Cross-entropy and right tokens of the reasoning, and then of image-text answers."""
    before = features[:, model.patches : -1]
    logits = ChatVla(model).apply({"params": params}, before, method=ChatVla.logits)
    truth = samples.tokens[:, 1:]
    texts = Texts(samples.tokens, samples.prompt_length, samples.length)
    counts = texts.answers()[:, 1:]
    surprise = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
    right = (jnp.argmax(logits, axis=-1) == truth).astype(jnp.float32)
    return tuple(
        jnp.sum(jnp.where(counts & kind[:, None], values, 0.0))
        for kind in (samples.robot, ~samples.robot)
        for values in (surprise, right)
    )


def _acting(
    params: dict,
    normalizer: Normalizer,
    draws: Draws,
    samples: Samples,
    conditions: Conditions,
    model: VlaConfig,
    config: ml_collections.ConfigDict,
) -> tuple[jax.Array, jax.Array]:
    """Squared error of the robot's chunks, and the distance of their positions."""
    clean, mask = normalizer.normalize(chunk_of(samples)), samples.future_mask
    mask = mask & samples.robot[:, None]
    clean, mask, conditions = jax.tree.map(
        lambda x: jnp.repeat(x, config.noise_draws, axis=0), (clean, mask, conditions)
    )
    noise, step = draws.noise.reshape(clean.shape), draws.step.reshape(-1)
    noisy = diffusion.add_noise(clean, noise, step, model.train_steps)
    predicted = ChatVla(model).apply(
        {"params": params}, conditions, noisy, step, method=ChatVla.denoise
    )
    error = jnp.where(mask[..., None], predicted - clean, 0.0)
    # where the error is zero a norm has no gradient, and nobody needs one
    metres = jax.lax.stop_gradient(error[..., :3]) * normalizer.scale[:3]
    return jnp.sum(error**2), jnp.sum(jnp.linalg.norm(metres, axis=-1))


def total(sums: Sums, counts: Counts, config: ml_collections.ConfigDict) -> jax.Array:
    """() the weighted sum of the mean losses; one that nothing counts in is zero."""
    return sum(
        config.weight[name] * getattr(sums, name) / jnp.maximum(getattr(counts, name), 1)
        for name in LOSSES
    )


def figures_of(
    sums: Sums, counts: Counts, config: ml_collections.ConfigDict
) -> dict[str, jax.Array]:
    """What is logged: "loss", each loss and what it means; NaN where nothing counts."""
    return {
        "loss": total(sums, counts, config),
        **{f"loss/{name}": getattr(sums, name) / getattr(counts, name) for name in LOSSES},
        "position_error_mm": 1e3 * sums.distance / counts.distance,
        "reasoning_right": sums.reasoning_right / counts.reasoning,
        "imagetext_right": sums.imagetext_right / counts.imagetext,
    }


def learns(path: tuple[str, ...], trained: str) -> bool:
    """Whether the parameter at this path learns where `trained` (one of TRAINED) does."""
    parts = {"all": True, "vlm": path[0] == "vlm", "head": path[0] == "head"}
    return parts[trained] if trained in parts else path[0] == "vlm" and "mlp" in path


def split(params: dict, trained: str) -> tuple[dict, dict]:
    """The parameters that learn and those that are frozen; `merge` puts them together."""
    flat = flatten_dict(params)
    return tuple(
        unflatten_dict({path: x for path, x in flat.items() if learns(path, trained) == wanted})
        for wanted in (True, False)
    )


def merge(trained: dict, frozen: dict) -> dict:
    """The inverse of `split`."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def make_train_step(model: VlaConfig, config: ml_collections.ConfigDict, mesh: Mesh):
    """`(state, samples) -> (state, figures)`, a pure function; randomness follows from the step.

    What is frozen (`config.trained`) gets no gradient, no moments and no average: its bytes stay.
    A step that is not finite changes nothing but the count, and figures["finite"] says so.
    """
    optimizer = make_optimizer(config, config.optimizer.final_share)

    def train_step(state: TrainState, samples: Samples) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        draws = draw(key, len(samples.robot), model, config)
        counts = count(samples, config)
        trained, frozen = split(state.params, config.trained)
        trained_ema, frozen_ema = split(state.ema, config.trained)

        def gradient_of(micro):
            def loss(trained):
                params = merge(trained, frozen)
                sums = losses(params, state.normalizer, *micro, model, config)
                return total(sums, counts, config), sums

            return jax.grad(loss, has_aux=True)(trained)

        gradient, sums = add_up(gradient_of, (draws, samples), mesh, config.accumulate)
        part, figures = updated(
            optimizer,
            state._replace(params=trained, ema=trained_ema),
            gradient,
            figures_of(sums, counts, config),
            config,
        )
        params, ema = merge(part.params, frozen), merge(part.ema, frozen_ema)
        return part._replace(params=params, ema=ema), figures

    return train_step


def initial_state(
    config: ml_collections.ConfigDict, params: dict, normalizer: Normalizer
) -> TrainState:
    """The state before the first step."""
    params = jax.tree.map(jnp.copy, params)
    ema = jax.tree.map(jnp.copy, params)
    optimizer = make_optimizer(config, config.optimizer.final_share)
    opt_state = optimizer.init(split(params, config.trained)[0])
    return TrainState(jnp.zeros((), jnp.int32), params, ema, opt_state, normalizer)
