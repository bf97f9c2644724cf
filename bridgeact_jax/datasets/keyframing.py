"""The keyframes of many episodes at once, and fewer of one's."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.geometry.guidance import is_open
from bridgeact_jax.geometry.keyframes import deviation, find_keyframes

MIN_PADDED_STEPS = 16
BATCH_STEPS = 4096
BATCH_EPISODES = 64
ROOM = 32  # keyframes to be thinned are padded to multiples of it


def keyframes_of(
    episodes: Sequence[Episode], permitted: Sequence[int], tolerance: float
) -> list[np.ndarray | None]:
    """(Q,) int32 ascending rows of each episode's keyframes.

    None where not even the last of the `permitted` numbers of them, which ascend, describes the
    path within `tolerance` metres. Lengths are padded to powers of two, and episodes of one length
    share a call, so that few programs are compiled and calls cost little. An episode's result does
    not depend on the others.
    """
    found: list[np.ndarray | None] = [None] * len(episodes)
    waiting = range(len(episodes))
    for most in permitted:
        by_size: dict[int, list[int]] = {}
        for number in waiting:
            by_size.setdefault(_padded(len(episodes[number])), []).append(number)
        for size, numbers in by_size.items():
            room = min(max(BATCH_STEPS // size, 1), BATCH_EPISODES)
            for start in range(0, len(numbers), room):
                batch = numbers[start : start + room]
                rows = _find([episodes[number] for number in batch], size, room, most, tolerance)
                for number, row in zip(batch, rows, strict=True):
                    found[number] = row
        waiting = [number for number in waiting if found[number] is None]
    return found


def thinned(episode: Episode, rows: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """At most `most` of an episode's keyframes, and by how much their curve misses the path, m.

    One after the other goes, each time that whose loss lets the curve miss the path least. The
    first, the last and those of gripper events stay; where they are too many, so do they.
    """
    size = _padded(len(episode))
    frames = np.minimum(np.arange(size), len(episode) - 1)
    path = episode.position[frames], episode.rotation[frames], episode.gripper[frames]
    opened = np.asarray(is_open(episode.gripper))
    room = -(-len(rows) // ROOM) * ROOM
    all_rows = np.tile(_repeat_last(rows, room), (room, 1))
    miss = float(_misses(*path, all_rows, np.full(room, len(rows)))[0])
    while len(rows) > most:
        changes = opened[rows] != opened[np.maximum(rows - 1, 0)]
        changes[[0, -1]] = True
        loose = np.flatnonzero(~changes)
        if not len(loose):
            break
        without = [_repeat_last(np.delete(rows, k), room) for k in loose]
        without += [without[-1]] * (room - len(loose))
        misses = np.asarray(_misses(*path, np.array(without), np.full(room, len(rows) - 1)))
        best = int(np.argmin(misses[: len(loose)]))
        rows, miss = np.delete(rows, loose[best]), float(misses[best])
    return rows, miss


def _repeat_last(rows: np.ndarray, room: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], room - len(rows))])


@jax.jit
def _misses(
    position: jax.Array, rotation: jax.Array, gripper: jax.Array, index: jax.Array, num: jax.Array
) -> jax.Array:
    """(C,) largest `deviation` of each of the choices `index` (C, K) of keyframes."""
    one = partial(deviation, position, rotation, gripper)
    return jnp.max(jax.vmap(one)(index, num), axis=1)


def _padded(steps: int) -> int:
    return max(MIN_PADDED_STEPS, 1 << (steps - 1).bit_length())


def _find(
    episodes: Sequence[Episode], size: int, room: int, most: int, tolerance: float
) -> list[np.ndarray | None]:
    position = np.zeros((room, size, 3), np.float32)
    rotation = np.zeros((room, size, 4), np.float32)
    gripper = np.zeros((room, size), np.float32)
    steps = np.zeros(room, np.int32)
    for number, episode in enumerate(episodes):
        steps[number] = len(episode)
        for padded, values in (
            (position, episode.position), (rotation, episode.rotation), (gripper, episode.gripper)
        ):
            padded[number, : len(episode)] = values
            padded[number, len(episode) :] = values[-1]
    index, count = _find_each(
        position, rotation, gripper, steps, len(episodes), most=most, tolerance=tolerance
    )
    index, count = np.asarray(index), np.asarray(count)
    return [
        index[number, : count[number]] if count[number] <= most else None
        for number in range(len(episodes))
    ]


@partial(jax.jit, static_argnames=("most", "tolerance"))
def _find_each(
    position: jax.Array,
    rotation: jax.Array,
    gripper: jax.Array,
    steps: jax.Array,
    number: jax.Array,
    *,
    most: int,
    tolerance: float,
) -> tuple[jax.Array, jax.Array]:
    """`find_keyframes` of the first `number` rows, one after the other."""

    def find(row, results):
        result = find_keyframes(
            position[row],
            rotation[row],
            gripper[row],
            steps[row],
            max_keyframes=most,
            tolerance=tolerance,
        )
        return tuple(all_.at[row].set(one) for all_, one in zip(results, result, strict=True))

    room = position.shape[0]
    empty = jnp.zeros((room, most), jnp.int32), jnp.zeros(room, jnp.int32)
    return jax.lax.fori_loop(0, number, find, empty)
