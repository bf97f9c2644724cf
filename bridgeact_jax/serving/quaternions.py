"""Unit quaternions wxyz in NumPy, for what must run without JAX: signs do not matter."""

import numpy as np


def angle(q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Radians in [0, pi] (...,) between quaternions (..., 4) of any length; NaN for length 0."""
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    r = r / np.linalg.norm(r, axis=-1, keepdims=True)
    r = np.where(np.sum(q * r, axis=-1, keepdims=True) < 0, -r, r)
    return 4.0 * np.arctan2(np.linalg.norm(r - q, axis=-1), np.linalg.norm(r + q, axis=-1))


def slerp(q: np.ndarray, r: np.ndarray, share: float) -> np.ndarray:
    """The unit quaternion (4,) at `share` of the shorter way from `q` to `r` (4,)."""
    half = angle(q, r) / 2
    toward = r if q @ r >= 0 else -r
    if half < 1e-6:
        mixed = (1 - share) * q + share * toward
    else:
        mixed = np.sin((1 - share) * half) * q + np.sin(share * half) * toward
    return mixed / np.linalg.norm(mixed)
