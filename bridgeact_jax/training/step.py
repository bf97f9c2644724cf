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
    ACTION_DIM,
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
    """Added over the numbers of a batch that count, and how many they are, all ().

    squared: of the normalised chunk, over `numbers`. distance: metres, over `rows`.
    """

    squared: jax.Array
    numbers: jax.Array
    distance: jax.Array
    rows: jax.Array

    def figures(self) -> dict[str, jax.Array]:
        """The means, by the names they are logged under."""
        return {
            "loss": self.squared / jnp.maximum(self.numbers, 1),
            "position_error_mm": 1e3 * self.distance / jnp.maximum(self.rows, 1),
        }


def draw(
    key: jax.Array, batch: int, model: ExpertConfig, config: ml_collections.ConfigDict
) -> Draws:
    """The random numbers of the loss of `batch` examples."""
    noise_key, step_key, guidance_key, cloud_key = jax.random.split(key, 4)
    draws = (batch, config.noise_draws)
    return Draws(
        jax.random.normal(noise_key, (*draws, model.horizon, ACTION_DIM)),
        jax.random.randint(step_key, draws, 0, model.train_steps),
        jax.random.uniform(guidance_key, (batch,)) >= config.dropout.guidance,
        jax.random.uniform(cloud_key, (batch, 1)) >= config.dropout.cloud,
    )


def diffusion_loss(
    params: dict,
    draws: Draws,
    example: Example,
    normalizer: Normalizer,
    model: ExpertConfig,
    config: ml_collections.ConfigDict,
) -> tuple[jax.Array, Sums]:
    """Squared error of the predicted clean chunk, summed over valid numbers, and what to log.

    Each observation is encoded once and denoised against its noise draws.
    """
    expert = ActionExpert(model)
    clean = normalizer.normalize(example.chunk)
    observation = example.observation
    if config.use_cloud:
        observation = observation._replace(point_mask=observation.point_mask & draws.seen)
    condition = expert.apply(
        {"params": params},
        observation,
        draws.guided,
        use_cloud=config.use_cloud,
        method=ActionExpert.encode,
    )

    condition, clean, mask = (
        jnp.repeat(x, config.noise_draws, axis=0) for x in (condition, clean, example.mask)
    )
    noise, step = draws.noise.reshape(clean.shape), draws.step.reshape(-1)
    noisy = diffusion.add_noise(clean, noise, step, model.train_steps)
    predicted = expert.apply(
        {"params": params}, condition, noisy, step, method=ActionExpert.denoise
    )
    squared = jnp.sum(jnp.where(mask, (predicted - clean) ** 2, 0.0))
    error = (predicted[..., :3] - clean[..., :3]) * normalizer.scale[:3]
    inside = mask[..., 0]
    distance = jnp.where(inside, jnp.linalg.norm(error, axis=-1), 0.0)
    return squared, Sums(squared, jnp.sum(mask), jnp.sum(distance), jnp.sum(inside))


def make_train_step(
    model: ExpertConfig, config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation
):
    """`(state, windows) -> (state, figures)`, a pure function; randomness follows from the step.

    The batch is taken in `config.accumulate` micro-batches, whose gradients add up to that of the
    whole. A step that is not finite changes nothing but the count, and figures["finite"] says so.
    """

    def gradient_of(params, normalizer, micro):
        keys, draws, windows = micro
        example = jax.vmap(lambda k, w: make_example(k, w, model, config.noise))(keys, windows)
        return jax.grad(diffusion_loss, has_aux=True)(
            params, draws, example, normalizer, model, config
        )

    def split(x):  # every micro-batch takes from every device's part, so that nothing moves
        return x.reshape(-1, config.accumulate, *x.shape[1:]).swapaxes(0, 1)

    def train_step(state: TrainState, windows: Windows) -> tuple[TrainState, dict]:
        batch = windows.steps.shape[0]
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        example_key, loss_key = jax.random.split(key)
        whole = (
            jax.random.split(example_key, batch), draw(loss_key, batch, model, config), windows
        )  # fmt: skip

        def add(total, micro):
            part = gradient_of(state.params, state.normalizer, micro)
            return jax.tree.map(jnp.add, total, part), None

        parts = jax.tree.map(split, whole)
        shapes = jax.eval_shape(
            gradient_of, state.params, state.normalizer, jax.tree.map(lambda x: x[0], parts)
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (gradient, sums), _ = jax.lax.scan(add, zeros, parts)
        gradient = jax.tree.map(lambda g: g / jnp.maximum(sums.numbers, 1), gradient)

        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.optimizer.ema_decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, params)
        figures = {**sums.figures(), "gradient_norm": optax.global_norm(gradient)}
        finite = jnp.isfinite(figures["loss"] + optax.global_norm((gradient, params)))
        params, ema, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, ema, opt_state),
            (state.params, state.ema, state.opt_state),
        )
        new = TrainState(state.step + 1, params, ema, opt_state, state.normalizer)
        return new, {**figures, "finite": finite}

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
