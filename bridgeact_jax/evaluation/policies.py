"""Policies over a fixed-size batch of arms: a target for each arm at every control step."""

from collections.abc import Callable
from functools import cache, partial

import jax
import numpy as np

from bridgeact_jax.evaluation import closed_loop
from bridgeact_jax.evaluation.gripper import follow, settled
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim.environment import CLOUD_POINTS, Observation
from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.training.checkpoint import load_expert

EXECUTE = 4  # rows of a chunk executed before the next is sampled
LINGER = 10  # control steps the follower stands at the end of its curve before it gives up

Targets = tuple[np.ndarray, np.ndarray, np.ndarray]


class SplinePolicy:
    """The guidance followed to the letter, by the clock."""

    def __init__(self, plans: list[Waypoints]):
        self._timed = [time_guidance(guidance_of(plan)) for plan in plans]
        self._last = np.array([len(position) - 1 for position, _, _ in self._timed])
        self._step = np.zeros(len(plans), int)

    def replace(self, arm: int, plan: Waypoints) -> None:
        """A new plan for arm number `arm`, issued now."""
        self._timed[arm] = time_guidance(guidance_of(plan))
        self._last[arm], self._step[arm] = len(self._timed[arm][0]) - 1, 0

    def targets(self, observations: list[Observation], cloud_of: Callable) -> Targets:
        """Targets (B, 3), (B, 4), (B,) for the next 0.1 s."""
        rows = np.minimum(self._step, self._last)
        self._step += 1
        return tuple(
            np.stack([parts[i][row] for parts, row in zip(self._timed, rows, strict=True)])
            for i in range(3)
        )

    def finished(self) -> np.ndarray:
        """(B,) whether the curve is done and nothing more will happen."""
        return self._step > self._last + LINGER


@cache
def _compiled(checkpoint: str, use_cloud: bool, use_guidance: bool, **sampler: float):
    _, model, *saved = load_expert(checkpoint)
    # Where everything else of the rollouts is, which need not be where checkpoints are loaded.
    params, normalizer = jax.tree.map(jax.numpy.asarray, jax.device_get(saved))
    act = partial(
        closed_loop.act,
        model,
        use_cloud=use_cloud,
        use_guidance=use_guidance,
        **sampler,
    )
    return jax.jit(act), params, normalizer


class ChunkPolicy:
    """Chunks of targets in closed loop.

    A new chunk is sampled every `EXECUTE` control steps and after each gripper event. A row's
    result depends on its own key and what is seen and known of its own arm only.
    """

    def __init__(self, keys: jax.Array, gripper: np.ndarray):
        """`keys` (B,) typed PRNG keys; `gripper` (B,) as commanded, 1 = open."""
        self._keys, self._gripper = keys, settled(gripper)
        count = len(gripper)
        self._row = np.zeros(count, int)
        self._flipped, self._renewed = np.zeros(count, bool), np.zeros(count, bool)
        self._chunk: list[np.ndarray] | None = None
        self._step = 0

    def targets(self, observations: list[Observation], see: Callable) -> Targets:
        """Targets (B, 3), (B, 4), (B,) for the next 0.1 s; `see(i)` is what arm i's policy sees."""
        if self._step > 0:
            self._track(*measured(observations), self._gripper.command)
        fresh = (self._step % EXECUTE == 0) | self._flipped | self._renewed
        self._renewed[:] = False
        if fresh.any():
            self._renew(fresh, see)
        row = np.arange(len(observations)), self._row
        position, rotation, wanted = (column[row] for column in self._chunk)
        before, self._gripper = self._gripper, follow(self._gripper, wanted)
        self._flipped = self._gripper.command != before.command
        self._row = np.minimum(self._row + 1, self._chunk[0].shape[1] - 1)
        self._step += 1
        return position, rotation, self._gripper.command

    def finished(self) -> np.ndarray:
        """(B,) always False: the policy goes on until the time limit."""
        return np.zeros(len(self._row), bool)

    def _track(
        self, position: np.ndarray, rotation: np.ndarray, width: np.ndarray, command: np.ndarray
    ) -> None:
        """Take note of where the arms are, a control step later."""
        raise NotImplementedError

    def _sample(self, fresh: np.ndarray, see: Callable, keys: jax.Array) -> Targets:
        """Chunks (B, H, ...), of which those of the arms `fresh` (B,) count."""
        raise NotImplementedError

    def _renew(self, fresh: np.ndarray, see: Callable) -> None:
        keys = jax.vmap(partial(jax.random.fold_in, data=self._step))(self._keys)
        new = [np.array(x) for x in self._sample(fresh, see, keys)]
        if self._chunk is None:
            self._chunk = new
        for old, row in zip(self._chunk, new, strict=True):
            old[fresh] = row[fresh]
        self._row[fresh] = 0


def measured(observations: list[Observation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position (B, 3), rotation (B, 4) and gripper width (B,) of a batch, float32."""
    return tuple(
        np.array([getattr(o, name) for o in observations], np.float32)
        for name in ("position", "rotation", "gripper_width")
    )


class ExpertPolicy(ChunkPolicy):
    """The action expert in closed loop, which sees clouds; `checkpoint` is a run's workdir.

    Without `use_guidance` the plan is never shown, and the policy goes by cloud and arm alone.
    `sampler` is what `closed_loop.act` should do otherwise than it does.
    """

    def __init__(
        self,
        checkpoint: str,
        plans: list[Waypoints],
        observations: list[Observation],
        keys: jax.Array,
        *,
        use_cloud: bool,
        use_guidance: bool = True,
        **sampler: float,
    ):
        batched = jax.tree.map(lambda *x: np.stack(x), *plans)
        super().__init__(keys, batched.gripper[:, 0])
        compiled = _compiled(checkpoint, use_cloud, use_guidance, **sampler)
        self._act, self._params, self._normalizer = compiled
        self._state = closed_loop.start(batched, measured(observations)[2])
        self._use_cloud = use_cloud

    def replace(self, arm: int, plan: Waypoints) -> None:
        """A new plan for arm number `arm`, issued now: the next targets are of a new chunk."""
        self._state = closed_loop.replace(self._state, arm, plan)
        self._gripper.command[arm], self._renewed[arm] = plan.gripper[0], True

    def _track(self, position, rotation, width, command):
        self._state = closed_loop.track(self._state, position, rotation, command, width)

    def _sample(self, fresh, see, keys):
        cloud = [see(i) if self._use_cloud and fresh[i] else None for i in range(len(fresh))]
        empty = np.full((CLOUD_POINTS, 3), np.inf, np.float16)
        clouds = np.stack([empty if c is None else c for c in cloud])
        return self._act(self._params, self._normalizer, self._state, clouds, keys)
