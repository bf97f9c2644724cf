"""One episode of dense end-effector motion."""

from dataclasses import dataclass

import numpy as np

CLOUD_SHAPE = (2048, 3)


@dataclass(frozen=True)
class Episode:
    """Base frame, metres, radians, seconds, quaternions wxyz, gripper 1 = open.

    time: (T,) float64, from 0, increasing.
    position: (T, 3) float32.
    rotation: (T, 4) float32, unit, successive ones on the same hemisphere.
    gripper: (T,) float32, the commanded state in [0, 1].
    gripper_width: (T,) float32, the measured opening in [0, 1]; NaN where not recorded.
    instruction: what the robot was told; may be empty.
    cloud: (T, 2048, 3) float16 or None.
    index: number of the episode in its source.
    """

    time: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    gripper: np.ndarray
    gripper_width: np.ndarray
    instruction: str = ""
    cloud: np.ndarray | None = None
    index: int = 0

    def __len__(self) -> int:
        return len(self.time)


class RejectedEpisode(Exception):
    """The episode's data cannot be used; the message is the reason, the same for the same fault."""


def check_episode(episode: Episode) -> None:
    """Raise RejectedEpisode unless the episode keeps what `Episode` promises."""
    if len(episode) < 2:
        raise RejectedEpisode("fewer than 2 steps")
    for name in ("time", "position", "rotation", "gripper"):
        if not np.isfinite(getattr(episode, name)).all():
            raise RejectedEpisode(f"{name} is not finite")
    if (np.diff(episode.time) <= 0).any():
        raise RejectedEpisode("time does not increase")
    if np.isinf(episode.gripper_width).any():
        raise RejectedEpisode("gripper_width is not finite")
    if episode.cloud is not None and not np.isfinite(episode.cloud).all():
        raise RejectedEpisode("cloud is not finite")


def align_hemispheres(quaternions: np.ndarray) -> np.ndarray:
    """(T, 4) with signs flipped so that successive quaternions have a dot product >= 0."""
    dots = np.sum(quaternions[1:] * quaternions[:-1], axis=-1)
    signs = np.cumprod(np.concatenate([[1.0], np.where(dots < 0, -1.0, 1.0)]))
    return quaternions * signs[:, None]
