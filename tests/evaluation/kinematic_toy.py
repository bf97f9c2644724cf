"""A world without contact: cubes on a plane and a hand that moves exactly where it is told.

A cube is grasped when the hand closes within reach of it, and then moves with the hand. The real
keyframes, guidance, projection, window and sampling code close the loop in it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridgeact_jax.datasets.loader import Trajectories
from bridgeact_jax.evaluation import closed_loop
from bridgeact_jax.geometry.guidance import Waypoints, build_guidance, sample
from bridgeact_jax.geometry.keyframes import find_keyframes
from bridgeact_jax.geometry.noise import perturb_waypoints

SIZE = 0.045
GRASP_HEIGHT = 0.025
LATERAL, VERTICAL = 0.018, 0.02
POINTS = 384
DOWN = np.array([0.0, 1.0, 0.0, 0.0])
PADDED = 16


class Scene:
    """One cube to lift, one distractor of the same shape 10-15 cm away, a starting pose."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.cube = np.append(self.rng.uniform([0.4, -0.2], [0.6, 0.2]), SIZE / 2)
        bearing, away = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.10, 0.15)
        self.distractor = self.cube + away * np.array([np.cos(bearing), np.sin(bearing), 0])
        self.hand = self.rng.uniform([0.4, -0.15, 0.25], [0.6, 0.15, 0.35])
        self.grasped = None
        self.miss = np.inf

    def plan(self) -> Waypoints:
        """What a perfect planner says: above, down and close, up."""
        grasp = np.append(self.cube[:2], GRASP_HEIGHT)
        position = np.stack([self.hand, grasp + [0, 0, 0.1], grasp, grasp + [0, 0, 0.2]])
        position = np.pad(position, ((0, PADDED - 4), (0, 0)), mode="edge")
        gripper = np.r_[1.0, 1.0, np.zeros(PADDED - 2)]
        return Waypoints(
            position.astype(np.float32),
            np.tile(DOWN, (PADDED, 1)).astype(np.float32),
            gripper.astype(np.float32),
            np.int32(4),
        )

    def cloud(self) -> np.ndarray:
        """(POINTS, 3): the upper and side faces of both cubes, the rest on the table."""
        share = POINTS * 3 // 8
        cubes = []
        for centre in (self.cube, self.distractor):
            face = self.rng.integers(0, 5, share)
            points = self.rng.uniform(-SIZE / 2, SIZE / 2, (share, 3))
            axis, sign = face // 2, np.where(face % 2, -1, 1)
            axis, sign = np.where(face == 4, 2, axis), np.where(face == 4, 1, sign)
            points[np.arange(share), axis] = sign * SIZE / 2
            cubes.append(centre + points)
        table = self.rng.uniform([0.2, -0.4, 0], [0.8, 0.4, 0], (POINTS - 2 * share, 3))
        return np.concatenate([*cubes, table]).astype(np.float16)

    def move(self, position: np.ndarray, gripper: float) -> None:
        """The hand goes to `position`, with what it holds; closing may grasp, opening releases."""
        if self.grasped is not None:
            self.grasped += position - self.hand
        self.hand = np.array(position, np.float64)
        if gripper < 0.5 and np.isinf(self.miss):
            self.miss = float(np.linalg.norm(self.hand[:2] - self.cube[:2]))
        if gripper > 0.5:
            self.grasped = None
        elif self.grasped is None:
            for centre in (self.cube, self.distractor):
                off = np.abs(self.hand - (centre + [0, 0, GRASP_HEIGHT - SIZE / 2]))
                if np.hypot(*off[:2]) < LATERAL and off[2] < VERTICAL:
                    self.grasped = centre

    @property
    def lifted(self) -> bool:
        return bool(self.cube[2] > 0.1)

    @property
    def wrong(self) -> bool:
        return bool(self.distractor[2] > 0.05)


_sample = jax.jit(lambda guidance, s: sample(guidance, s))
_build = jax.jit(build_guidance)


def follow(guidance, speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets (T, 3) and gripper commands (T,) along the curve at `speed` metres a second."""
    progress = np.asarray(guidance.progress)
    event = np.flatnonzero(np.diff(np.asarray(guidance.gripper) > 0.5))[0]
    before = np.arange(0, progress[event], 0.1 * speed)
    eased = progress[event] - 0.02 * 0.5 ** np.arange(1, 5)
    before = np.r_[before[before < progress[event] - 0.02], eased, progress[event]]
    after = np.arange(progress[event + 1], progress[-1] + 0.1 * speed, 0.1 * speed)
    s = np.r_[before, np.full(5, progress[event + 1]), after]
    grid = jnp.asarray(np.pad(s, (0, 256 - len(s)), mode="edge"), jnp.float32)
    position, _, gripper = (np.asarray(x)[: len(s)] for x in _sample(guidance, grid))
    return position, gripper


def demonstrations(episodes: int, seed: int) -> Trajectories:
    """Perfectly followed perfect plans, as the loader wants them."""
    columns, lengths, keyframes, clouds = [], [], [], []
    for episode in range(episodes):
        scene = Scene(seed * 1_000_003 + episode)
        position, gripper = follow(_build(scene.plan()), scene.rng.uniform(0.12, 0.25))
        sent = np.r_[gripper[:1], gripper[:-1]]
        for target, command in zip(position, sent, strict=True):
            scene.move(target, command)
            clouds.append(scene.cloud())
        count, padded = len(position), 256
        rotation = np.tile(DOWN, (padded, 1)).astype(np.float32)
        index, number = find_keyframes(
            np.pad(position, ((0, padded - count), (0, 0)), mode="edge"),
            rotation,
            np.pad(gripper, (0, padded - count), mode="edge"),
            count,
            max_keyframes=PADDED,
        )
        assert number <= PADDED
        keyframes.append(np.asarray(index[:number]) + sum(lengths))
        lengths.append(count)
        columns.append((position, rotation[:count], gripper))
    position, rotation, gripper = (np.concatenate(c) for c in zip(*columns, strict=True))
    return Trajectories(
        offsets=np.r_[0, np.cumsum(lengths)],
        position=position,
        rotation=rotation,
        gripper=gripper,
        gripper_width=np.full(len(gripper), np.nan, np.float32),
        keyframe_offsets=np.r_[0, np.cumsum([len(k) for k in keyframes])],
        keyframe_row=np.concatenate(keyframes),
        cloud=np.stack(clouds),
        cloud_row=np.arange(len(gripper)),
    )


def noisy_plans(scenes: list[Scene], noise: float, seed: int) -> Waypoints:
    plans = jax.tree.map(lambda *x: np.stack(x), *[scene.plan() for scene in scenes])
    keys = jax.random.split(jax.random.key(seed), len(scenes))
    return jax.vmap(perturb_waypoints, in_axes=(0, 0, None))(keys, plans, noise)


class Outcome(NamedTuple):
    """Shares of episodes with the right and the wrong cube lifted; median metres beside the right
    one at the first closing."""

    lifted: float
    wrong: float
    miss: float


def outcome(scenes: list[Scene]) -> Outcome:
    return Outcome(
        float(np.mean([scene.lifted for scene in scenes])),
        float(np.mean([scene.wrong for scene in scenes])),
        float(np.median([scene.miss for scene in scenes])),
    )


def follow_plans(episodes: int, noise: float, seed: int = 7) -> Outcome:
    """The guidance followed to the letter."""
    scenes = [Scene(seed * 1_000_003 + i) for i in range(episodes)]
    plans = noisy_plans(scenes, noise, seed)
    for i, scene in enumerate(scenes):
        plan = jax.tree.map(lambda x, i=i: x[i], plans)
        for target, command in zip(*follow(_build(plan), 0.2), strict=True):
            scene.move(target, command)
    return outcome(scenes)


def run_expert(
    config, params, normalizer, *, episodes: int, noise: float, shown: bool = True, seed: int = 7,
    steps: int = 80, execute: int = 4,
) -> Outcome:
    """The expert in closed loop on the same scenes and plans as `follow_plans`.

    Unless `shown`, its clouds are empty: they hold no point that could be near.
    """
    scenes = [Scene(seed * 1_000_003 + i) for i in range(episodes)]
    plans = noisy_plans(scenes, noise, seed)
    width = np.full(episodes, np.nan, np.float32)
    state = closed_loop.start(plans, width)
    act = jax.jit(
        lambda state, clouds, keys: closed_loop.act(
            config, params, normalizer, state, clouds, keys, use_cloud=True
        )
    )
    rotation = np.tile(DOWN, (episodes, 1)).astype(np.float32)
    command = np.ones(episodes, np.float32)
    row = np.zeros(episodes, int)
    fresh = np.ones(episodes, bool)
    chunk = None
    for step in range(steps):
        if step % execute == 0:
            fresh[:] = True
        if fresh.any():
            clouds = np.stack([scene.cloud() for scene in scenes])
            if not shown:
                clouds[:] = np.inf
            keys = jax.random.split(jax.random.key(seed * 1000 + step), episodes)
            new = [np.array(x) for x in act(state, clouds, keys)]
            chunk = new if chunk is None else [
                np.where(fresh.reshape(-1, *[1] * (n.ndim - 1)), n, c)
                for n, c in zip(new, chunk, strict=True)
            ]
            row[fresh] = 0
        index = np.arange(episodes), row
        wanted = chunk[2][index]
        flip = np.where(command > 0.5, wanted < 0.4, wanted > 0.6)
        for i, scene in enumerate(scenes):
            scene.move(chunk[0][i, row[i]], 1 - command[i] if flip[i] else command[i])
        command = np.where(flip, 1 - command, command).astype(np.float32)
        row, fresh = np.minimum(row + 1, config.horizon - 1), flip
        position = np.stack([scene.hand for scene in scenes]).astype(np.float32)
        state = closed_loop.track(state, position, rotation, command, width)
    return outcome(scenes)
