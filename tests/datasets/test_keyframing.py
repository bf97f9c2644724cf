"""Keyframes of many episodes at once against one at a time."""

import jax
import numpy as np
import pytest

from bridgeact_jax.datasets import keyframing
from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.geometry.keyframes import find_keyframes


def wander(rng, steps, scale=0.004) -> Episode:
    position = np.cumsum(rng.normal(size=(steps, 3)), axis=0).astype(np.float32) * scale
    half = np.cumsum(rng.normal(size=steps)) * 0.02
    zero = 0 * half
    rotation = np.stack([np.cos(half), zero, np.sin(half), zero], axis=1).astype(np.float32)
    gripper = (np.sin(np.arange(steps) / rng.uniform(3, 20)) > 0).astype(np.float32)
    return Episode(np.arange(steps) / 10, position, rotation, gripper, np.full(steps, np.nan))


@pytest.mark.slow
def test_a_batch_gives_what_each_episode_gives(monkeypatch):
    monkeypatch.setattr(keyframing, "BATCH_EPISODES", 8)
    rng = np.random.default_rng(0)
    episodes = [wander(rng, steps) for steps in rng.integers(2, 33, size=40)]
    episodes += [wander(rng, 32, scale=0.05)]  # too winding for any permitted number
    permitted, tolerance = (8, 16), 0.01
    found = keyframing.keyframes_of(episodes, permitted, tolerance)
    counts = []
    for episode, keyframes in zip(episodes, found, strict=True):
        size = max(16, 1 << (len(episode) - 1).bit_length())
        rows = np.minimum(np.arange(size), len(episode) - 1)
        path = [x[rows] for x in (episode.position, episode.rotation, episode.gripper)]
        for most in permitted:
            index, count = jax.device_get(
                find_keyframes(
                    *path, np.int32(len(episode)), max_keyframes=most, tolerance=tolerance
                )
            )
            if count <= most:
                break
        if keyframes is None:
            assert count > most
        else:
            np.testing.assert_array_equal(keyframes, index[:count])
            counts.append(len(keyframes))
    assert found[-1] is None and min(counts) <= 8 < max(counts)


def test_no_episode_has_no_keyframes():
    assert keyframing.keyframes_of([], (16,), 0.01) == []
