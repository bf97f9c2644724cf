"""From a raw batch to a gradient: noise, guidance, projection, observation, loss. All jitted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from bridgeact_jax.datasets.loader import Windows
from bridgeact_jax.geometry import clouds, rotations
from bridgeact_jax.geometry.guidance import Waypoints, build_guidance, is_open
from bridgeact_jax.geometry.noise import perturb_waypoints
from bridgeact_jax.geometry.projection import project_history
from bridgeact_jax.models import diffusion
from bridgeact_jax.models.action_expert import ActionExpert, ExpertConfig
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import (
    PAST,
    Observation,
    Proprioception,
    action_chunk,
    observe,
)

HELD_RADIUS = 0.05  # metres around the tool within which points belong to what it holds
PART_OF_CHUNK = np.repeat([0, 1, 2], [3, 6, 1])  # position, rotation, gripper
FAR = 1e3  # metres, where a plan has no gripper event


class TrainState(NamedTuple):
    """step () int32; params and ema, pytrees of float32; opt_state of the optimiser; normalizer."""

    step: jax.Array
    params: dict
    ema: dict
    opt_state: optax.OptState
    normalizer: Normalizer


class Example(NamedTuple):
    """What the loss needs: observation, target chunk (H, 10) in metres, mask (H, 10) bool.

    The mask is False past the episode's end and for what the dataset does not record.
    """

    observation: Observation
    chunk: jax.Array
    mask: jax.Array


def _displace(
    key: jax.Array, window: Windows, noise: ml_collections.ConfigDict
) -> tuple[Windows, jax.Array, jax.Array]:
    """The current pose moved off the path, as errors in closed loop will move it.

    The displacement narrows towards gripper events, where the hand is between things. What the hand
    holds, the points near it while it is told to be closed, moves along. Returns the window with
    its last poses and held points displaced, and the displacement as (3,) metres and (4,) wxyz.
    """
    position_key, rotation_key = jax.random.split(key)
    here = window.history_position[window.steps - 1]
    opened = is_open(window.waypoint_gripper)
    event = jnp.concatenate([jnp.zeros(1, bool), opened[1:] != opened[:-1]])
    event &= jnp.arange(opened.shape[0]) < window.waypoint_count
    distance = jnp.linalg.norm(window.waypoint_position - here, axis=-1)
    nearest = jnp.min(jnp.where(event, distance, FAR))
    funnel = jnp.minimum(noise.recovery_floor + noise.recovery_slope * nearest, 1.0)
    scale = jnp.minimum(funnel / noise.recovery_position, 1.0)
    shift = noise.recovery_position * scale * jax.random.normal(position_key, (3,))
    turn = noise.recovery_rotation * scale * jax.random.normal(rotation_key, (3,))
    turn = rotations.exp(turn)
    recent = jnp.arange(window.history_position.shape[0]) >= window.steps - 1 - PAST
    recent &= window.steps > 1
    position = jnp.where(recent[:, None], window.history_position + shift, window.history_position)
    rotation = jnp.where(
        recent[:, None],
        rotations.multiply(turn, window.history_rotation),
        window.history_rotation,
    )
    moved = window.steps > 1
    shift = jnp.where(moved, shift, 0.0)
    turn = jnp.where(moved, turn, jnp.array([1.0, 0.0, 0.0, 0.0]))
    cloud = window.cloud
    if cloud is not None:
        offset = cloud.astype(jnp.float32) - here
        held = ~is_open(window.history_command[window.steps - 1])
        held &= jnp.linalg.norm(offset, axis=-1) < HELD_RADIUS
        carried = here + shift + rotations.rotate(turn, offset)
        cloud = jnp.where(held[:, None], carried, cloud.astype(jnp.float32))
    displaced = window._replace(
        history_position=position, history_rotation=rotation, cloud=cloud
    )
    return displaced, shift, turn


def make_example(
    key: jax.Array, window: Windows, model: ExpertConfig, noise: ml_collections.ConfigDict
) -> Example:
    """One training example from one raw window (no batch dimension); a pure function of its key.

    The displaced arm returns to the demonstrated path linearly over `recovery_steps` rows.
    """
    plan_key, displace_key, crop_key = jax.random.split(key, 3)
    window, shift, turn = _displace(displace_key, window, noise)
    fade = jnp.clip(1.0 - (jnp.arange(model.horizon) + 1.0) / noise.recovery_steps, 0.0, 1.0)
    identity = jnp.array([1.0, 0.0, 0.0, 0.0])
    future_position = window.future_position + fade[:, None] * shift
    future_rotation = rotations.multiply(
        rotations.slerp(identity, turn, fade), window.future_rotation
    )

    plan = Waypoints(
        window.waypoint_position,
        window.waypoint_rotation,
        window.waypoint_gripper,
        window.waypoint_count,
    )
    plan = perturb_waypoints(plan_key, plan, noise.waypoint, noise.common, noise.rotation)
    guidance = build_guidance(plan)
    progress = project_history(
        guidance,
        window.history_position,
        window.history_rotation,
        window.history_command,
        window.steps,
    )
    recent = jnp.maximum(window.steps - 1 - jnp.arange(PAST, -1, -1), 0)
    proprioception = Proprioception(
        window.history_position[recent],
        window.history_rotation[recent],
        window.history_command[window.steps - 1],
        window.gripper_width,
    )
    origin, facing = proprioception.position[-1], proprioception.rotation[-1]
    if window.cloud is None:
        points, mask = jnp.zeros((model.points, 3)), jnp.zeros(model.points, bool)
    else:
        points, mask = clouds.crop(crop_key, window.cloud, origin, model.crop_radius, model.points)
    known = jnp.concatenate([jnp.ones(1, bool), window.recorded])[PART_OF_CHUNK]
    return Example(
        observe(guidance, progress, proprioception, points, mask),
        action_chunk(future_position, future_rotation, window.future_gripper, origin, facing),
        window.future_mask[:, None] & known,
    )


def diffusion_loss(
    params: dict,
    key: jax.Array,
    example: Example,
    normalizer: Normalizer,
    model: ExpertConfig,
    config: ml_collections.ConfigDict,
) -> tuple[jax.Array, dict]:
    """Mean squared error of the predicted clean chunk over valid numbers, and figures to log.

    Each observation is encoded once and denoised against `config.noise_draws` noise draws.
    """
    expert = ActionExpert(model)
    batch = example.chunk.shape[0]
    noise_key, step_key, guidance_key, cloud_key = jax.random.split(key, 4)
    clean = normalizer.normalize(example.chunk)
    guided = jax.random.uniform(guidance_key, (batch,)) >= config.dropout.guidance
    observation = example.observation
    if config.use_cloud:
        seen = jax.random.uniform(cloud_key, (batch, 1)) >= config.dropout.cloud
        observation = observation._replace(point_mask=observation.point_mask & seen)
    condition = expert.apply(
        {"params": params},
        observation,
        guided,
        use_cloud=config.use_cloud,
        method=ActionExpert.encode,
    )

    draws = config.noise_draws
    condition, clean, mask = (
        jnp.repeat(x, draws, axis=0) for x in (condition, clean, example.mask)
    )
    noise = jax.random.normal(noise_key, clean.shape)
    step = jax.random.randint(step_key, (batch * draws,), 0, model.train_steps)
    noisy = diffusion.add_noise(clean, noise, step, model.train_steps)
    predicted = expert.apply(
        {"params": params}, condition, noisy, step, method=ActionExpert.denoise
    )
    squared = jnp.where(mask, (predicted - clean) ** 2, 0.0)
    loss = jnp.sum(squared) / jnp.maximum(jnp.sum(mask), 1)
    error = (predicted[..., :3] - clean[..., :3]) * normalizer.scale[:3]
    inside = mask[..., 0]
    distance = jnp.where(inside, jnp.linalg.norm(error, axis=-1), 0.0)
    rows = jnp.maximum(jnp.sum(inside), 1)
    return loss, {"loss": loss, "position_error_mm": 1e3 * jnp.sum(distance) / rows}


def make_train_step(
    model: ExpertConfig, config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation
):
    """`(state, windows) -> (state, figures)`, a pure function; randomness follows from the step."""

    def train_step(state: TrainState, windows: Windows) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        example_key, loss_key = jax.random.split(key)
        keys = jax.random.split(example_key, windows.steps.shape[0])
        example = jax.vmap(lambda k, w: make_example(k, w, model, config.noise))(keys, windows)
        gradient, figures = jax.grad(diffusion_loss, has_aux=True)(
            state.params, loss_key, example, state.normalizer, model, config
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.optimizer.ema_decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, params)
        figures["gradient_norm"] = optax.global_norm(gradient)
        return TrainState(state.step + 1, params, ema, opt_state, state.normalizer), figures

    return train_step


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """AdamW under a warm-up and cosine schedule, gradients clipped; no decay on vectors."""
    options = config.optimizer
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.warmup_steps, config.steps, 0.01 * options.learning_rate
    )

    def decayed(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.adamw(schedule, weight_decay=options.weight_decay, mask=decayed),
    )
