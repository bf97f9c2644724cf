"""From a raw window to a training example: noise, guidance, projection, observation. All jitted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from bridgeact_jax.datasets.loader import Windows
from bridgeact_jax.geometry import clouds, rotations
from bridgeact_jax.geometry.guidance import Waypoints, build_guidance, is_open, sample
from bridgeact_jax.geometry.noise import perturb_waypoints
from bridgeact_jax.geometry.projection import project_history
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.models.observation import (
    PAST,
    UNIT,
    Observation,
    Proprioception,
    action_chunk,
    focus,
    focus_progress,
    observe,
)
from bridgeact_jax.training.augmentation import augment, imperfect

HELD_RADIUS = 0.05  # metres around the tool within which points belong to what it holds
EMPTY_WIDTH = 0.1  # of a closed hand that holds nothing, as a share of its opening
PART_OF_CHUNK = np.repeat([0, 1, 2], [3, 6, 1])  # position, rotation, gripper
FAR = 1e3  # metres, where a plan has no gripper event


class Example(NamedTuple):
    """What the loss needs: observation, target chunk (H, 10) in metres, mask (H, 10) bool.

    The mask is False past the episode's end and for what the dataset does not record. true_focus
    (3,) is what the observation's focus would be without the planner's errors.
    """

    observation: Observation
    chunk: jax.Array
    mask: jax.Array
    true_focus: jax.Array


def unpack(rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Position (..., 3) m, rotation (..., 4) wxyz and gripper command (...,) of rows (..., 8)."""
    return rows[..., :3], rows[..., 3:7], rows[..., 7]


def _displace(
    key: jax.Array, window: Windows, noise: ml_collections.ConfigDict
) -> tuple[Windows, jax.Array, jax.Array]:
    """The current pose moved off the path, as errors in closed loop will move it.

    The displacement narrows towards gripper events and towards what the cloud shows, where the hand
    is between things. What the hand holds, the points near it while it is closed upon something,
    moves along. Returns the window with its last poses and held points displaced, and the
    displacement as (3,) metres and (4,) wxyz.
    """
    position_key, rotation_key = jax.random.split(key)
    position, rotation, command = unpack(window.history)
    here = position[window.steps - 1]
    waypoints, _, gripper = unpack(window.plan)
    opened = is_open(gripper)
    event = jnp.concatenate([jnp.zeros(1, bool), opened[1:] != opened[:-1]])
    event &= jnp.arange(opened.shape[0]) < window.waypoint_count
    distance = jnp.linalg.norm(waypoints - here, axis=-1)
    nearest = jnp.min(jnp.where(event, distance, FAR))
    cloud = window.cloud
    if cloud is not None:
        cloud = cloud.astype(jnp.float32)
        offset = cloud - here
        away = jnp.linalg.norm(offset, axis=-1)
        held = ~is_open(command[window.steps - 1]) & ~(window.gripper_width < EMPTY_WIDTH)
        held &= away < HELD_RADIUS
        nearest = jnp.minimum(nearest, jnp.min(jnp.where(held, FAR, away)))
    funnel = jnp.minimum(noise.recovery_floor + noise.recovery_slope * nearest, 1.0)
    scale = jnp.minimum(funnel / noise.recovery_position, 1.0)
    shift = noise.recovery_position * scale * jax.random.normal(position_key, (3,))
    turn = noise.recovery_rotation * scale * jax.random.normal(rotation_key, (3,))
    turn = rotations.exp(turn)
    moved = window.steps > 1
    recent = moved & (jnp.arange(len(position)) >= window.steps - 1 - PAST)
    recent = recent[:, None]
    position = jnp.where(recent, position + shift, position)
    rotation = jnp.where(recent, rotations.multiply(turn, rotation), rotation)
    shift = jnp.where(moved, shift, 0.0)
    turn = jnp.where(moved, turn, jnp.array([1.0, 0.0, 0.0, 0.0]))
    if cloud is not None:
        cloud = jnp.where(held[:, None], here + shift + rotations.rotate(turn, offset), cloud)
    history = jnp.concatenate([position, rotation, command[:, None]], axis=-1)
    return window._replace(history=history, cloud=cloud), shift, turn


def _scales(key: jax.Array, noise: ml_collections.ConfigDict) -> jax.Array:
    """(3,) standard deviations of a plan's errors: m per waypoint, m in common, rad."""
    largest = jnp.array([noise.waypoint, noise.common, noise.rotation])
    share = jax.random.uniform(key, (3,))
    return jnp.where(noise.graded, share, 1.0) * largest


def make_example(
    key: jax.Array, window: Windows, model: ExpertConfig, config: ml_collections.ConfigDict
) -> Example:
    """One training example from one raw window (no batch dimension); a pure function of its key.

    The displaced arm returns to the demonstrated path linearly over `recovery_steps` rows.
    """
    noise = config.noise
    plan_key, scale_key, displace_key, crop_key, augment_key, sensor_key = jax.random.split(key, 6)
    window = augment(augment_key, window, config.augment)
    window, shift, turn = _displace(displace_key, window, noise)
    fade = jnp.clip(1.0 - (jnp.arange(model.horizon) + 1.0) / noise.recovery_steps, 0.0, 1.0)
    identity = jnp.array([1.0, 0.0, 0.0, 0.0])
    future_position, future_rotation, future_gripper = unpack(window.future)
    future_position = future_position + fade[:, None] * shift
    future_rotation = rotations.multiply(rotations.slerp(identity, turn, fade), future_rotation)

    plan = Waypoints(*unpack(window.plan), window.waypoint_count)
    true_guidance = build_guidance(plan)
    plan = perturb_waypoints(plan_key, plan, *_scales(scale_key, noise))
    guidance = build_guidance(plan)
    position, rotation, command = unpack(window.history)
    progress = project_history(guidance, position, rotation, command, window.steps)
    recent = jnp.maximum(window.steps - 1 - jnp.arange(PAST, -1, -1), 0)
    proprioception = Proprioception(
        position[recent], rotation[recent], command[window.steps - 1], window.gripper_width
    )
    origin, facing = proprioception.position[-1], proprioception.rotation[-1]
    if window.cloud is None:
        points, mask = jnp.zeros((model.points, 3)), jnp.zeros(model.points, bool)
    else:
        looked_at = focus(guidance, progress) if config.dropout.guidance < 1 else None
        points, mask = clouds.crop(
            crop_key, window.cloud, origin, model.crop_radius, model.points, looked_at
        )
        points, mask = imperfect(sensor_key, points, mask, config.augment)
    true_guidance = guidance._replace(position=true_guidance.position)
    true_focus, _, _ = sample(true_guidance, focus_progress(guidance, progress))
    known = jnp.concatenate([jnp.ones(1, bool), window.recorded])[PART_OF_CHUNK]
    return Example(
        observe(guidance, progress, proprioception, points, mask),
        action_chunk(future_position, future_rotation, future_gripper, origin, facing),
        window.future_mask[:, None] & known,
        (true_focus - origin) / UNIT,
    )
