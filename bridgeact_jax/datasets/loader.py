"""From trajectories to batches of windows: raw columns gathered in whole batches, NumPy only.

A batch is a pure function of (seed, step). What it holds is raw; noise, spline, projection and
windows run inside the jitted step.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bridgeact_jax.datasets.trajectories import Trajectories, join
from bridgeact_jax.errors import UserError

EVENT_FRAMES = 10
AHEAD = 4  # keyframes still to come that a plan must hold, where the episode has them
ROW = 8  # numbers of a pose with a gripper command: position, rotation, command


class Windows(NamedTuple):
    """A batch of raw windows at 10 Hz; base frame, metres, wxyz, gripper 1 = open.

    A plan is issued at the first of `steps` past frames; the current frame is the last of them.
    Poses are rows of `ROW` numbers: position 3, rotation 4 and a gripper command.

    history (B, T, 8): the frames from the plan's start on, each with the command last sent before;
    from `steps` on they mean nothing. steps (B,) int32. gripper_width (B,): now, NaN where not
    measured. future (B, H, 8): the H following frames, each with the command sent on the way there.
    future_mask (B, H): False past the end of the episode, where the last pose repeats.
    plan (B, K, 8): the pose at the plan's start and the keyframes after it, each with the command
    from there on; from `waypoint_count` (B,) int32 on they mean nothing. recorded (B, 2) bool:
    whether the dataset records the rotation and the gripper (what it does not is filled in).
    dataset (B,) int32: which of the sampler's stores. cloud (B, M, 3) float16, or None.
    """

    history: np.ndarray
    steps: np.ndarray
    gripper_width: np.ndarray
    future: np.ndarray
    future_mask: np.ndarray
    plan: np.ndarray
    waypoint_count: np.ndarray
    recorded: np.ndarray
    dataset: np.ndarray
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

    Attributes:
      lengths: (E,) frames of each episode, over all stores in turn. first_episode: (D + 1,) where
        each store's episodes begin.
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
        data = join(stores)
        self._names = [store.name for store in stores]
        self.first_episode = np.cumsum([0, *(len(store.offsets) - 1 for store in stores)])
        self._horizon, self._history, self._waypoints = horizon, history, waypoints
        self._clouds = [store.cloud for store in stores] if with_cloud else None
        self._cloud_row, self._gripper_width = data.cloud_row, data.gripper_width
        self._recorded = np.array([store.recorded for store in stores])
        self._offsets, self.lengths = data.offsets, np.diff(data.offsets)
        self._keyframe_row, self._keyframe_offsets = data.keyframe_row, data.keyframe_offsets
        self._episode_of = np.repeat(np.arange(len(data.offsets) - 1), np.diff(data.offsets))
        before = np.maximum(np.arange(len(data.gripper)) - 1, data.offsets[self._episode_of])
        self._frames = _pack(data, data.gripper[before], padding=max(history, horizon + 1))
        self._gripper = data.gripper
        self._keyframes = _pack(data, data.gripper, data.keyframe_row, padding=waypoints)
        self._ends = np.cumsum([len(store.position) for store in stores])
        self._weight = self._weights(contact_weight)
        self._draw(self._weight, np.ones(1) if probability is None else np.asarray(probability))

    def _weights(self, contact_weight: float) -> np.ndarray:
        """(N,) how often each row is drawn as the current frame, within its store."""
        episode = self._episode_of
        within = np.diff(episode) == 0
        flips = np.flatnonzero(np.diff(self._gripper > 0.5) & within)
        weight = np.ones(len(episode))
        for shift in range(-EVENT_FRAMES, EVENT_FRAMES + 1):
            near = np.clip(flips + shift, 0, len(weight) - 1)
            same = episode[near] == episode[flips]
            weight[near[same]] = contact_weight
        weight[self._offsets[1:] - 1] = 0.0
        return weight

    def _draw(self, weight: np.ndarray, probability: np.ndarray) -> None:
        """Draw rows by `weight` (N,) within stores drawn by `probability` (D,)."""
        self._cumulative = np.cumsum(weight)
        totals = np.concatenate([[0.0], self._cumulative[self._ends - 1]])
        self._start, self._total = totals[:-1], np.diff(totals)
        drawn = np.flatnonzero(weight)
        self._last = drawn[np.searchsorted(drawn, self._ends) - 1]
        self._probability = probability

    def only(self, episodes: np.ndarray) -> "WindowSampler":
        """The same sampler, drawing from some episodes alone; nothing is copied but the weights.

        Args:
          episodes: (E,) bool, over the episodes of all stores. Stores without any are left out,
            the others keep their proportions. At least one must have two frames.
        """
        sampler = copy.copy(self)
        weight = np.where(episodes[self._episode_of], self._weight, 0.0)
        totals = np.add.reduceat(weight, np.concatenate([[0], self._ends[:-1]]))
        probability = np.where(totals > 0, self._probability, 0.0)
        sampler._draw(weight, probability / probability.sum())
        return sampler

    def rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """(batch_size,) current frames drawn for a step, with replacement.

        One uniform number chooses the store by its probability, and what it leaves the frame.
        """
        uniform = np.random.default_rng((seed, step)).random(batch_size)
        drawn = np.flatnonzero(self._probability)
        before = np.concatenate([[0.0], np.cumsum(self._probability[drawn])[:-1]])
        index = np.searchsorted(before, uniform, side="right") - 1
        store = drawn[index]
        within = (uniform - before[index]) / self._probability[store]
        target = self._start[store] + within * self._total[store]
        rows = np.searchsorted(self._cumulative, target, side="right")
        return np.minimum(rows, self._last[store])  # rounding could reach the next store

    def locate(self, rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Store, its episode and that episode's frame at 10 Hz, of each of `rows` (B,)."""
        store = np.searchsorted(self._ends, rows, side="right")
        episode = self._episode_of[rows]
        names = [self._names[index] for index in store]
        return names, episode - self.first_episode[store], rows - self._offsets[episode]

    def gather(self, rows: np.ndarray) -> Windows:
        """The windows at the current frames `rows` (B,), each of which has a next frame."""
        horizon, keyframe_row = self._horizon, self._keyframe_row
        episode = self._episode_of[rows]
        first, last = self._offsets[episode], self._offsets[episode + 1] - 1
        start = np.maximum(first, rows - self._history + 1)
        latest = np.searchsorted(keyframe_row, rows, side="right") + AHEAD - self._waypoints
        own = latest >= self._keyframe_offsets[episode]
        start = np.where(own, np.maximum(start, keyframe_row[latest * own]), start)

        future = _runs(self._frames, horizon)[rows + 1]
        ahead = rows[:, None] + 1 + np.arange(horizon)
        inside = ahead <= last[:, None]
        beyond = np.flatnonzero(~inside[:, -1])
        stay = self._frames[last[beyond], None]
        past_end = np.where(inside[beyond, :, None], future[beyond], stay)
        past_end[..., -1] = self._gripper[np.minimum(ahead[beyond] - 1, last[beyond, None])]
        future[beyond] = past_end

        upcoming = np.searchsorted(keyframe_row, start, side="right")
        left = self._keyframe_offsets[episode + 1] - upcoming
        plan = np.empty((len(rows), self._waypoints, ROW), np.float32)
        plan[:, 0] = self._frames[start]
        plan[:, 0, -1] = self._gripper[start]
        plan[:, 1:] = _runs(self._keyframes, self._waypoints - 1)[upcoming]
        store = np.searchsorted(self._ends, rows, side="right")
        return Windows(
            history=_runs(self._frames, self._history)[start],
            steps=(rows - start + 1).astype(np.int32),
            gripper_width=self._gripper_width[rows],
            future=future,
            future_mask=inside,
            plan=plan,
            waypoint_count=(1 + np.minimum(left, self._waypoints - 1)).astype(np.int32),
            recorded=self._recorded[store],
            dataset=store.astype(np.int32),
            cloud=None if self._clouds is None else self._gather_clouds(rows, store),
        )

    def _gather_clouds(self, rows: np.ndarray, store: np.ndarray) -> np.ndarray:
        row = self._cloud_row[rows]
        if len(self._clouds) == 1:
            return self._clouds[0][row]
        gathered = np.empty((len(rows), *self._clouds[0].shape[1:]), self._clouds[0].dtype)
        for index in np.unique(store):
            here = store == index
            gathered[here] = self._clouds[index][row[here]]
        return gathered


def _pack(
    data: Trajectories, command: np.ndarray, rows: np.ndarray | slice = slice(None), *, padding: int
) -> np.ndarray:
    """(len(rows) + padding, ROW) float32: pose and command of `rows`, then the last one again."""
    columns = data.position[rows], data.rotation[rows], command[rows, None]
    packed = np.concatenate(columns, axis=1, dtype=np.float32)
    return np.concatenate([packed, np.repeat(packed[-1:], padding, axis=0)])


def _runs(packed: np.ndarray, length: int) -> np.ndarray:
    """(M - length + 1, length, ROW) view of every run of `length` rows: gathered as one block."""
    shape = len(packed) - length + 1, length, ROW
    return as_strided(packed, shape, (packed.strides[0], *packed.strides), writeable=False)
