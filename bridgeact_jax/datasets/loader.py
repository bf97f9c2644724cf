"""From a trajectory store to the training stream: raw columns gathered in whole batches.

The gather is NumPy only. A batch is a pure function of (seed, step): the stream is a grain dataset
over step numbers, so that its position is one integer and every host can take its slice. What a
batch holds is raw; noise, spline, projection and windows run inside the jitted step.
"""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from bridgeact_jax.datasets.store import TrajectoryStore
from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry import rotations

HZ = 10.0
EVENT_FRAMES = 10
AHEAD = 4  # keyframes still to come that a plan must hold, where the episode has them


class Windows(NamedTuple):
    """A batch of raw windows at 10 Hz; base frame, metres, wxyz, gripper 1 = open.

    A plan is issued at the first of `steps` past frames; the current frame is the last of them.

    history_position (B, T, 3), history_rotation (B, T, 4): poses from the plan's start on, the
    current one repeated as padding. history_command (B, T): command last sent before each.
    steps (B,) int32. gripper_width (B,): now, NaN where not measured. future_position (B, H, 3),
    future_rotation (B, H, 4): poses at the H following frames; future_gripper (B, H): the commands
    sent on the way to each. future_mask (B, H): False past the end of the episode, where the last
    pose repeats. waypoint_* (B, K, ...), waypoint_count (B,) int32: the pose at the plan's start
    and the keyframes after it. cloud (B, M, 3) float16, or None.
    """

    history_position: np.ndarray
    history_rotation: np.ndarray
    history_command: np.ndarray
    steps: np.ndarray
    gripper_width: np.ndarray
    future_position: np.ndarray
    future_rotation: np.ndarray
    future_gripper: np.ndarray
    future_mask: np.ndarray
    waypoint_position: np.ndarray
    waypoint_rotation: np.ndarray
    waypoint_gripper: np.ndarray
    waypoint_count: np.ndarray
    cloud: np.ndarray | None


@dataclass(frozen=True)
class Trajectories:
    """Episodes at 10 Hz, end to end, in memory (clouds stay on disk).

    offsets (E + 1,): rows of each episode. Columns as in the store. keyframe_row (Q,): rows of the
    keyframes, ascending; keyframe_offsets (E + 1,). cloud_row (N,): row of the store's cloud column
    nearest in time, where `cloud` is not None.
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
    )


class WindowSampler:
    """Batches of windows, each a pure function of (seed, step).

    Args:
      trajectories: at least one episode of two frames.
      horizon: H future frames; history: T past frames at most; waypoints: K at most, K > `AHEAD`.
        A plan is issued as long ago as both allow.
      contact_weight: how many times more often a frame within a second of a gripper event is drawn
        than any other.
      with_cloud: gather clouds too. Raises UserError if there are none.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        *,
        horizon: int,
        history: int,
        waypoints: int,
        contact_weight: float,
        with_cloud: bool,
    ):
        if with_cloud and trajectories.cloud is None:
            raise UserError(
                "the store has no cloud column, which training with clouds needs: convert a "
                "dataset whose card names a cloud, or pretrain on it instead"
            )
        self._data = trajectories
        self._horizon, self._history, self._waypoints = horizon, history, waypoints
        self._with_cloud = with_cloud
        offsets = trajectories.offsets
        self._episode_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        within = np.diff(self._episode_of) == 0
        flips = np.flatnonzero(np.diff(trajectories.gripper > 0.5) & within)
        weight = np.ones(len(self._episode_of))
        for shift in range(-EVENT_FRAMES, EVENT_FRAMES + 1):
            near = np.clip(flips + shift, 0, len(weight) - 1)
            same = self._episode_of[near] == self._episode_of[flips]
            weight[near[same]] = contact_weight
        weight[offsets[1:] - 1] = 0.0
        if not weight.any():
            raise UserError("the store has no episode of at least two frames at 10 Hz")
        self._cumulative = np.cumsum(weight)
        self.num_windows = int(np.count_nonzero(weight))

    def rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """(batch_size,) current frames drawn for a step, with replacement."""
        uniform = np.random.default_rng((seed, step)).random(batch_size)
        return np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")

    def gather(self, rows: np.ndarray) -> Windows:
        """The windows whose current frames are `rows` (B,)."""
        data, horizon = self._data, self._horizon
        episode = self._episode_of[rows]
        first, last = data.offsets[episode], data.offsets[episode + 1] - 1
        start = np.maximum(first, rows - self._history + 1)
        latest = np.searchsorted(data.keyframe_row, rows, side="right") + AHEAD - self._waypoints
        own = latest >= data.keyframe_offsets[episode]
        start = np.where(own, np.maximum(start, data.keyframe_row[latest * own]), start)
        past = np.minimum(start[:, None] + np.arange(self._history), rows[:, None])
        ahead = rows[:, None] + 1 + np.arange(horizon)
        future = np.minimum(ahead, last[:, None])

        upcoming = np.searchsorted(data.keyframe_row, start, side="right")
        end = data.keyframe_offsets[episode + 1]
        index = np.minimum(upcoming[:, None] + np.arange(self._waypoints - 1), end[:, None] - 1)
        plan = np.concatenate([start[:, None], data.keyframe_row[index]], axis=1)
        count = 1 + np.minimum(end - upcoming, self._waypoints - 1)
        return Windows(
            history_position=data.position[past],
            history_rotation=data.rotation[past],
            history_command=data.gripper[np.maximum(past - 1, first[:, None])],
            steps=(rows - start + 1).astype(np.int32),
            gripper_width=data.gripper_width[rows],
            future_position=data.position[future],
            future_rotation=data.rotation[future],
            future_gripper=data.gripper[np.minimum(ahead - 1, last[:, None])],
            future_mask=ahead <= last[:, None],
            waypoint_position=data.position[plan],
            waypoint_rotation=data.rotation[plan],
            waypoint_gripper=data.gripper[plan],
            waypoint_count=count.astype(np.int32),
            cloud=data.cloud[data.cloud_row[rows]] if self._with_cloud else None,
        )

    def stream(
        self, *, seed: int, batch_size: int, first_step: int, shard: int = 0, num_shards: int = 1
    ) -> grain.DatasetIterator:
        """Endless batches from `first_step` on, gathered ahead in a thread.

        Args:
          batch_size: global; each of `num_shards` hosts receives its contiguous slice.
        """
        part = slice(shard * batch_size // num_shards, (shard + 1) * batch_size // num_shards)

        def batch(step: int) -> Windows:
            return self.gather(self.rows(seed, step, batch_size)[part])

        steps = grain.MapDataset.range(first_step, np.iinfo(np.int32).max)
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        return iter(steps.map(batch).to_iter_dataset(options))
