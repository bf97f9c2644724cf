"""Planted episodes, and what the manifest of their store says."""

import numpy as np

from bridgeact_jax.datasets.episode import Episode

FACTS = {
    "card": "toy",
    "source": {"dataset": "toy", "version": "1.0.0", "split": "train", "files": []},
    "rejected": {"fewer than 2 steps": 1},
    "rejected_episodes": [{"index": 1, "reason": "fewer than 2 steps"}],
}


def make_episode(number: int, steps: int, with_cloud: bool = False) -> Episode:
    rng = np.random.default_rng(number)
    half = np.linspace(0, 0.5, steps)
    return Episode(
        time=np.arange(steps) / 5,
        position=np.stack([0.1 * np.arange(steps), np.zeros(steps), np.zeros(steps)], 1),
        rotation=np.stack([np.cos(half), np.sin(half), 0 * half, 0 * half], 1),
        gripper=(np.arange(steps) < steps // 2).astype(np.float32),
        gripper_width=np.full(steps, np.nan),
        instruction=f"räume {number} auf",
        cloud=rng.normal(size=(steps, 2048, 3)).astype(np.float16) if with_cloud else None,
        index=2 * number,
    )
