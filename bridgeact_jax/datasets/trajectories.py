"""Stores resampled to 10 Hz and laid end to end: what training windows are cut from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgeact_jax.datasets.store import TrajectoryStore
from bridgeact_jax.geometry import rotations

HZ = 10.0


@dataclass(frozen=True)
class Trajectories:
    """A store's episodes at 10 Hz, end to end, in memory (clouds stay on disk).

    offsets (E + 1,): rows of each episode. Columns as in the store. keyframe_row (Q,): rows of the
    keyframes, ascending; keyframe_offsets (E + 1,). cloud_row (N,): row of the store's cloud column
    nearest in time, where `cloud` is not None. recorded: whether the dataset records the rotation
    and the gripper. name: what errors call it.
    """

    offsets: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    gripper: np.ndarray
    gripper_width: np.ndarray
    keyframe_offsets: np.ndarray
    keyframe_row: np.ndarray
    cloud: np.ndarray | None = None
    cloud_row: np.ndarray | None = None
    recorded: tuple[bool, bool] = (True, True)
    name: str = "the store"

    @property
    def num_windows(self) -> int:
        """Frames that have a next one: those a window can be drawn at."""
        return len(self.position) - (len(self.offsets) - 1)


def resample(store: TrajectoryStore) -> Trajectories:
    """The store's episodes on a 10 Hz grid by their own `time`.

    Positions linearly, rotations along the geodesic, the gripper command and width held from the
    last frame at or before; a keyframe moves to the first grid frame at or after it.
    """
    columns = store.columns
    source_offsets, time = np.asarray(columns["episode_offsets"]), np.asarray(columns["time"])
    lefts, fractions, lengths, keyframe_rows = [], [], [], []
    base = 0
    for episode, (start, end) in enumerate(
        zip(source_offsets[:-1], source_offsets[1:], strict=True)
    ):
        clock = time[start:end] - time[start]
        grid = np.arange(int(np.floor(clock[-1] * HZ + 1e-3)) + 1) / HZ
        left = np.clip(np.searchsorted(clock, grid + 1e-4, side="right") - 1, 0, len(clock) - 1)
        right = np.minimum(left + 1, len(clock) - 1)
        span = clock[right] - clock[left]
        fraction = np.clip((grid - clock[left]) / np.where(span > 0, span, 1.0), 0.0, 1.0)
        first, last = columns["keyframe_offsets"][episode : episode + 2]
        frames = clock[columns["keyframe_index"][first:last]]
        rows = np.minimum(np.ceil(frames * HZ - 1e-3).astype(np.int64), len(grid) - 1)
        lefts.append(start + left)
        fractions.append(np.where(left < right, fraction, 0.0))
        lengths.append(len(grid))
        keyframe_rows.append(base + rows)
        base += len(grid)
    left, t = np.concatenate(lefts), np.concatenate(fractions).astype(np.float32)
    right = np.minimum(left + (t > 0), len(time) - 1)
    position, rotation = np.asarray(columns["position"]), np.asarray(columns["rotation"])
    cloud = columns.get("cloud")
    return Trajectories(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        position=position[left] + t[:, None] * (position[right] - position[left]),
        rotation=np.asarray(rotations.slerp(rotation[left], rotation[right], t)),
        gripper=np.asarray(columns["gripper"])[left],
        gripper_width=np.asarray(columns["gripper_width"])[left],
        keyframe_offsets=np.asarray(columns["keyframe_offsets"]),
        keyframe_row=np.concatenate(keyframe_rows),
        cloud=cloud,
        cloud_row=None if cloud is None else np.where(t < 0.5, left, right),
        recorded=recorded_parts(store),
        name=str(store.path),
    )


def recorded_parts(store: TrajectoryStore) -> tuple[bool, bool]:
    """Whether the store's dataset records the rotation (a yaw counts) and the gripper."""
    recorded = store.manifest.get("recorded", {"rotation": "full", "gripper": True})
    return recorded["rotation"] != "none", recorded["gripper"]


def join(stores: Sequence[Trajectories]) -> Trajectories:
    """The episodes of all stores end to end; clouds stay apart, and `cloud_row` counts in each."""
    if len(stores) == 1:
        return stores[0]
    rows = np.cumsum([0, *(len(store.position) for store in stores)])
    keyframes = np.cumsum([0, *(len(store.keyframe_row) for store in stores)])

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(store, name) for store in stores])

    def offsets(name: str, starts: np.ndarray) -> np.ndarray:
        parts = [getattr(s, name)[:-1] + start for s, start in zip(stores, starts, strict=False)]
        return np.concatenate([*parts, starts[-1:]])

    with_cloud = all(store.cloud is not None for store in stores)
    return Trajectories(
        offsets=offsets("offsets", rows),
        position=column("position"),
        rotation=column("rotation"),
        gripper=column("gripper"),
        gripper_width=column("gripper_width"),
        keyframe_offsets=offsets("keyframe_offsets", keyframes),
        keyframe_row=np.concatenate(
            [store.keyframe_row + row for store, row in zip(stores, rows, strict=False)]
        ),
        cloud_row=column("cloud_row") if with_cloud else None,
    )
