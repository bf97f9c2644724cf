"""The state of a run: shapes first, then shardings, then values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
import optax.contrib

from bridgeact_jax.models.action_expert import (
    GATE_GAIN,
    ActionExpert,
    ExpertConfig,
    example_inputs,
)
from bridgeact_jax.models.normalizer import Normalizer, identity

MUON_RMS = 0.2  # of a step of Muon at a learning rate of 1, which is AdamW's


class TrainState(NamedTuple):
    """step () int32; params and ema, pytrees of float32; opt_state of the optimiser; normalizer."""

    step: jax.Array
    params: dict
    ema: dict
    opt_state: optax.OptState
    normalizer: Normalizer


def make_optimizer(
    config: ml_collections.ConfigDict, final_share: float = 0.01
) -> optax.GradientTransformation:
    """AdamW under a warm-up and cosine schedule, gradients clipped; no decay on vectors.

    With a `muon_learning_rate`, matrices are left to Muon (Jordan, 2024; its steps scaled to the
    size of AdamW's as by Liu et al., arXiv 2502.16982) and AdamW keeps the rest. Learning rates end
    at `final_share` of their peaks.
    """
    options = config.optimizer

    def schedule(rate):
        return optax.warmup_cosine_decay_schedule(
            0.0, rate, options.warmup_steps, config.steps, final_share * rate
        )

    def decayed(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    rate, decay = schedule(options.learning_rate), options.weight_decay
    if options.muon_learning_rate:
        update = optax.contrib.muon(
            schedule(options.muon_learning_rate),
            weight_decay=decay,
            adam_learning_rate=rate,
            consistent_rms=MUON_RMS,
        )
    else:
        update = optax.adamw(rate, weight_decay=decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), update)


def initial_state(
    config: ml_collections.ConfigDict,
    model: ExpertConfig,
    params: dict | None,
    normalizer: Normalizer,
) -> TrainState:
    """The state before the first step, from `params` or, without them, from `config.seed`.

    The zero gate keeps what stage 1 has learned; a run that starts with clouds has nothing to keep
    and opens it.
    """
    if params is None:
        key = jax.random.key(config.seed)
        params = ActionExpert(model).init(key, *example_inputs(model))["params"]
        if config.use_cloud:
            params["cloud_gate"] = jnp.full_like(params["cloud_gate"], 1 / GATE_GAIN)
    params = jax.tree.map(jnp.copy, params)
    ema = jax.tree.map(jnp.copy, params)
    opt_state = make_optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, opt_state, normalizer)


def param_shapes(model: ExpertConfig) -> dict:
    """Shapes and types of the expert's parameters; nothing is computed."""
    init = ActionExpert(model).init
    return jax.eval_shape(init, jax.random.key(0), *example_inputs(model))["params"]


def state_shapes(config: ml_collections.ConfigDict, model: ExpertConfig) -> TrainState:
    """Shapes and types of the state; nothing is computed."""
    return jax.eval_shape(lambda: initial_state(config, model, None, identity()))
