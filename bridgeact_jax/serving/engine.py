"""The expert, compiled: the closed loop's functions at the few sizes that serving needs."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation import closed_loop
from bridgeact_jax.evaluation.closed_loop import LoopState
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim.environment import CLOUD_POINTS
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.training.checkpoint import load_expert

BATCHES = (1, 2, 4, 8)  # sizes that are compiled


class Inputs(NamedTuple):
    """What one arm's chunk is made from.

    state: of a batch of one. cloud: (CLOUD_POINTS, 3) float32 m. key: `key_data`, into which `step`
    is folded.
    """

    state: LoopState
    cloud: np.ndarray
    key: np.ndarray
    step: int


class Engine:
    """A checkpoint, ready to act.

    Args:
      checkpoint: a workdir or an exported directory.
      batches: sizes to compile, rising.

    Attributes:
      horizon: rows of a chunk, 0.1 s apart.
      sees_clouds: whether the expert looks at clouds.

    Raises UserError if there is no checkpoint, and UsageError for one that never saw a plan.
    """

    def __init__(self, checkpoint: epath.PathLike, batches: Sequence[int] = BATCHES):
        self._batches = batches
        config, model, *saved = load_expert(checkpoint)
        if config.dropout.guidance == 1.0:
            raise UsageError(f"serve: --checkpoint={checkpoint} has never seen a plan")
        self.horizon, self.sees_clouds = model.horizon, bool(config.use_cloud)
        self._params, self._normalizer = jax.tree.map(jnp.asarray, jax.device_get(saved))

        def act(params, normalizer, state, clouds, key_data, steps):
            keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(key_data), steps)
            return closed_loop.act(
                model, params, normalizer, state, clouds, keys, use_cloud=self.sees_clouds
            )

        self._act = jax.jit(act)

    @property
    def largest(self) -> int:
        """How many arms act at once."""
        return self._batches[-1]

    def warm(self) -> None:
        """Compile everything."""
        position, rotation = np.zeros((2, 3), np.float32), np.eye(4, dtype=np.float32)[[0, 0]]
        plan = Waypoints(position, rotation, np.ones(2, np.float32), np.int32(2))
        state = self.replace(self.start(plan, np.nan), plan)
        state = self.track(state, position[0], rotation[0], 1.0, np.nan)
        cloud = np.full((CLOUD_POINTS, 3), np.inf, np.float32)
        inputs = Inputs(state, cloud, key_data(0), 0)
        for size in self._batches:
            self.act([inputs] * size)

    def start(self, plan: Waypoints, gripper_width: float) -> LoopState:
        """`closed_loop.start` for one arm; the plan without padding."""
        return closed_loop.start(_one(pad(plan)), np.float32([gripper_width]))

    def replace(self, state: LoopState, plan: Waypoints) -> LoopState:
        """`closed_loop.replace` for one arm."""
        return closed_loop.replace(state, np.int32(0), pad(plan))

    def track(
        self,
        state: LoopState,
        position: np.ndarray,
        rotation: np.ndarray,
        gripper: float,
        gripper_width: float,
    ) -> LoopState:
        """`closed_loop.track` for one arm: the pose (3,), (4,), the command, the width."""
        return closed_loop.track(
            state, position[None], rotation[None], np.float32([gripper]),
            np.float32([gripper_width]),
        )  # fmt: skip

    def act(self, rows: Sequence[Inputs]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Position (H, 3), rotation (H, 4) and gripper (H,) for at most `largest` arms.

        Waits for the device. The batch is padded by repeating its last row.
        """
        size = next(size for size in self._batches if size >= len(rows))
        padded = [*rows, *[rows[-1]] * (size - len(rows))]
        states = jax.device_get([row.state for row in padded])
        state = jax.tree.map(lambda *parts: np.concatenate(parts), *states)
        chunks = self._act(
            self._params,
            self._normalizer,
            state,
            np.stack([row.cloud for row in padded]),
            np.stack([row.key for row in padded]),
            np.array([row.step for row in padded], np.int32),
        )
        columns = jax.device_get(chunks)
        return [tuple(column[i] for column in columns) for i in range(len(rows))]


def key_data(seed: int) -> np.ndarray:
    """The data of the PRNG key of a seed."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def _one(plan: Waypoints) -> Waypoints:
    return Waypoints(*(np.asarray(part)[None] for part in plan))
