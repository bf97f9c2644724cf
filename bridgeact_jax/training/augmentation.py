"""Windows as seen from elsewhere and with poorer sensors. Jitted."""

import jax
import jax.numpy as jnp
import ml_collections

from bridgeact_jax.datasets.loader import ROW, Windows
from bridgeact_jax.geometry import rotations
from bridgeact_jax.geometry.guidance import METRES_PER_RADIAN
from bridgeact_jax.models.observation import Proprioception

MIRRORED_ROTATION = (1.0, -1.0, 1.0, -1.0)  # of a quaternion wxyz, seen in the plane y = 0
MIRRORED_POSITION = (1.0, -1.0, 1.0)


def augment(key: jax.Array, window: Windows, options: ml_collections.ConfigDict) -> Windows:
    """The window (no batch dimension) mirrored in the plane y = 0 and turned about the vertical.

    History, future, plan and cloud move along. A mirrored tool is a tool, for a parallel gripper is
    symmetric. `options`: `config.augment`.
    """
    mirror_key, turn_key = jax.random.split(key)
    mirrored = jax.random.bernoulli(mirror_key, options.mirror)
    angle = options.yaw * jax.random.uniform(turn_key, minval=-1.0, maxval=1.0)
    turn = rotations.exp(angle * jnp.array([0.0, 0.0, 1.0]))

    def moved_position(position: jax.Array) -> jax.Array:
        position = jnp.where(mirrored, position * jnp.array(MIRRORED_POSITION), position)
        return rotations.rotate(turn, position)

    def moved(rows: jax.Array) -> jax.Array:
        rotation = rows[:, 3:7]
        rotation = jnp.where(mirrored, rotation * jnp.array(MIRRORED_ROTATION), rotation)
        columns = moved_position(rows[:, :3]), rotations.multiply(turn, rotation), rows[:, 7:ROW]
        return jnp.concatenate(columns, axis=-1)

    window = window._replace(
        history=moved(window.history), future=moved(window.future), plan=moved(window.plan)
    )
    if window.cloud is None:
        return window
    return window._replace(cloud=moved_position(window.cloud.astype(jnp.float32)))


def blurred(
    key: jax.Array, proprioception: Proprioception, options: ml_collections.ConfigDict
) -> Proprioception:
    """The past poses with noise, the current one as it is.

    A policy that reads its speed off them repeats it: where it has come to stand it goes on
    standing (the copycat problem of imitation: de Haan et al., 2019).
    """
    position_key, turn_key = jax.random.split(key)
    position, rotation = proprioception.position, proprioception.rotation
    shape = (len(position) - 1, 3)
    shift = options.past_noise * jax.random.normal(position_key, shape)
    turn = options.past_noise / METRES_PER_RADIAN * jax.random.normal(turn_key, shape)
    turned = rotations.multiply(jax.vmap(rotations.exp)(turn), rotation[:-1])
    return proprioception._replace(
        position=position.at[:-1].add(shift), rotation=rotation.at[:-1].set(turned)
    )


def imperfect(
    key: jax.Array, points: jax.Array, mask: jax.Array, options: ml_collections.ConfigDict
) -> tuple[jax.Array, jax.Array]:
    """A crop, points (N, 3) m and mask (N,), with noise and with points lost."""
    noise_key, few_key, lost_key = jax.random.split(key, 3)
    noisy = points + options.point_noise * jax.random.normal(noise_key, points.shape)
    kept = 1.0 - options.point_dropout * jax.random.uniform(few_key)
    return noisy, mask & (jax.random.uniform(lost_key, mask.shape) < kept)
