"""From trajectories to the training stream: raw columns gathered in whole batches.

The gather is NumPy only. A batch is a pure function of (seed, step): the stream is a grain dataset
over step numbers, so that its position is one integer and every host can take its slice. What a
batch holds is raw; noise, spline, projection and windows run inside the jitted step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from bridgeact_jax.datasets.trajectories import Trajectories, join
from bridgeact_jax.errors import UserError

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
    and the keyframes after it. recorded (B, 2) bool: whether the dataset records the rotation and
    the gripper (what it does not is filled in). cloud (B, M, 3) float16, or None.
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
    recorded: np.ndarray
    cloud: np.ndarray | None


class WindowSampler:
    """Batches of windows, each a pure function of (seed, step).

    Args:
      stores: at least one; each with an episode of two frames.
      probability: (D,) of drawing a window from each store; None where there is one.
      horizon: H future frames; history: T past frames at most; waypoints: K at most, K > `AHEAD`.
        A plan is issued as long ago as both allow.
      contact_weight: how many times more often a frame within a second of a gripper event is drawn
        than any other of its store.
      with_cloud: gather clouds too. Raises UserError if there are none.
    """

    def __init__(
        self,
        *stores: Trajectories,
        probability: Sequence[float] | None = None,
        horizon: int,
        history: int,
        waypoints: int,
        contact_weight: float,
        with_cloud: bool,
    ):
        blind = [store.name for store in stores if with_cloud and store.cloud is None]
        if blind:
            raise UserError(
                f"no cloud column in {', '.join(blind)}, which training with clouds needs: convert "
                "a dataset whose card names a cloud, or pretrain on it instead"
            )
        still = [store.name for store in stores if not store.num_windows]
        if still:
            raise UserError(f"no episode of at least two frames at 10 Hz in {', '.join(still)}")
        self._data = data = join(stores)
        self._names = [store.name for store in stores]
        self._first_episode = np.cumsum([0, *(len(store.offsets) - 1 for store in stores)])
        self._horizon, self._history, self._waypoints = horizon, history, waypoints
        self._clouds = [store.cloud for store in stores] if with_cloud else None
        self._recorded = np.array([store.recorded for store in stores])
        self._episode_of = np.repeat(np.arange(len(data.offsets) - 1), np.diff(data.offsets))
        weight = self._weights(contact_weight)
        self._ends = np.cumsum([len(store.position) for store in stores])
        drawn = np.flatnonzero(weight)
        self._last = drawn[np.searchsorted(drawn, self._ends) - 1]
        self._cumulative = np.cumsum(weight)
        totals = np.concatenate([[0.0], self._cumulative[self._ends - 1]])
        self._start, self._total = totals[:-1], np.diff(totals)
        self._probability = np.ones(1) if probability is None else np.asarray(probability)

    def _weights(self, contact_weight: float) -> np.ndarray:
        """(N,) how often each row is drawn as the current frame, within its store."""
        data, episode = self._data, self._episode_of
        within = np.diff(episode) == 0
        flips = np.flatnonzero(np.diff(data.gripper > 0.5) & within)
        weight = np.ones(len(episode))
        for shift in range(-EVENT_FRAMES, EVENT_FRAMES + 1):
            near = np.clip(flips + shift, 0, len(weight) - 1)
            same = episode[near] == episode[flips]
            weight[near[same]] = contact_weight
        weight[data.offsets[1:] - 1] = 0.0
        return weight

    def rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """(batch_size,) current frames drawn for a step, with replacement.

        One uniform number chooses the store by its probability, and what it leaves the frame.
        """
        uniform = np.random.default_rng((seed, step)).random(batch_size)
        before = np.concatenate([[0.0], np.cumsum(self._probability)[:-1]])
        store = np.searchsorted(before, uniform, side="right") - 1
        within = (uniform - before[store]) / self._probability[store]
        target = self._start[store] + within * self._total[store]
        rows = np.searchsorted(self._cumulative, target, side="right")
        return np.minimum(rows, self._last[store])  # rounding could reach the next store

    def locate(self, rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Store, its episode and that episode's frame at 10 Hz, of each of `rows` (B,)."""
        store = np.searchsorted(self._ends, rows, side="right")
        episode = self._episode_of[rows]
        names = [self._names[index] for index in store]
        return names, episode - self._first_episode[store], rows - self._data.offsets[episode]

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
        store = np.searchsorted(self._ends, rows, side="right")
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
            recorded=self._recorded[store],
            cloud=None if self._clouds is None else self._gather_clouds(rows, store),
        )

    def _gather_clouds(self, rows: np.ndarray, store: np.ndarray) -> np.ndarray:
        row = self._data.cloud_row[rows]
        if len(self._clouds) == 1:
            return self._clouds[0][row]
        gathered = np.empty((len(rows), *self._clouds[0].shape[1:]), self._clouds[0].dtype)
        for index in np.unique(store):
            here = store == index
            gathered[here] = self._clouds[index][row[here]]
        return gathered

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
