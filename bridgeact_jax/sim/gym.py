"""The tasks as Gymnasium environments, `BridgeAct/Lift-v0` and so on.

    import gymnasium
    import bridgeact_jax.sim.gym  # registers them
    env = gymnasium.make("BridgeAct/Lift-v0", observations="cloud")

or, without the import, `gymnasium.make("bridgeact_jax.sim.gym:BridgeAct/Lift-v0")`.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.sim import rendering
from bridgeact_jax.sim.disturbances import CALM, Disturbance
from bridgeact_jax.sim.environment import CLOUD_POINTS, CONTROL_PERIOD, Environment, Observation
from bridgeact_jax.sim.tasks import TASKS

OBSERVATIONS = ("state", "cloud", "rgbd")
STREAM = "gymnasium"  # neither evaluation's episodes nor the demonstrations'
PICTURE = 240  # pixels a side of each camera's picture
_REACH = 2.0  # metres: bounds of positions in the spaces


def environment_id(task: str) -> str:
    """Gymnasium's id of a task."""
    return f"BridgeAct/{''.join(part.capitalize() for part in task.split('_'))}-v0"


class BridgeActEnv(gymnasium.Env):
    """One task. An action is a tool pose in the base frame, held for 0.1 s, and the gripper.

    Action (8,): position m, rotation wxyz (normalised here), gripper (1 = open, threshold 0.5 with
    hysteresis). The tool is driven at most 8 cm and half a radian ahead of where it is.

    Observation, a dictionary: position (3,) m, rotation (4,) wxyz, gripper_width () in [0, 1]; with
    `observations="cloud"` also cloud (2048, 3) m; with "rgbd" the pictures of both cameras, rgb
    (2, 240, 240, 3) and depth (2, 240, 240) m along the optical axis (0: none), and what is needed
    to unproject them: intrinsics (2, 3, 3) and T_base_camera (2, 4, 4), x right, y down, z forward.

    Reward: 1 in the step that does the task, else 0. Terminated: success, or a failure that ends
    the episode; truncated: the task's time limit. `info`: instruction, success, subgoals and
    failure_kind (an empty word once successful).

    `reset(seed=S)` starts episode 0 of seed S and each `reset()` after it the next one;
    `reset(options={"episode": N})` starts episode N.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_PERIOD)}

    def __init__(
        self, task: str, *, arm: str = "panda", disturbance: Disturbance = CALM,
        observations: str = "cloud", stream: str = STREAM, render_mode: str | None = None,
    ):
        """`stream` names the episodes: "evaluation" gives those of `bridgeact evaluate`."""
        if observations not in OBSERVATIONS:
            hint = nearest(observations, OBSERVATIONS)
            raise UsageError(f"unknown observations '{observations}': {hint}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise UsageError(f"render_mode='{render_mode}': rgb_array or None")
        self.render_mode = render_mode
        self._env = Environment(task, arm=arm, disturbance=disturbance)
        self._observations, self._stream = observations, stream
        self._seed = self._episode = None
        self.action_space = spaces.Box(
            np.array([-_REACH] * 3 + [-1] * 4 + [0], np.float32),
            np.array([_REACH] * 3 + [1] * 4 + [1], np.float32),
        )
        self.observation_space = spaces.Dict(_spaces(observations))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See the class; `options` may hold "episode"."""
        super().reset(seed=seed)
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
            self._episode = -1
        self._episode = int((options or {}).get("episode", self._episode + 1))
        measured = self._env.reset(self._seed, self._episode, stream=self._stream)
        return self._observe(measured), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """See the class."""
        env, before = self._env, self._env.success
        measured = env.step(action[:3], action[3:7], float(action[7]))
        reward = float(env.success and not before)
        observation = self._observe(measured)
        return observation, reward, env.ended, env.done and not env.ended, self._info()

    def render(self) -> np.ndarray | None:
        """(240, 320, 3) uint8 with `render_mode="rgb_array"`."""
        return self._env.render() if self.render_mode == "rgb_array" else None

    def _observe(self, measured: Observation) -> dict[str, np.ndarray]:
        values = {
            "position": measured.position.astype(np.float32),
            "rotation": measured.rotation.astype(np.float32),
            "gripper_width": np.array(measured.gripper_width, np.float32),
        }
        if self._observations == "cloud":
            values["cloud"] = self._env.cloud()
        elif self._observations == "rgbd":
            values |= self._pictures()
        return values

    def _pictures(self) -> dict[str, np.ndarray]:
        rgb, depth = self._env.rgbd(PICTURE)
        poses = np.tile(np.eye(4, dtype=np.float32), (len(depth), 1, 1))
        for pose, (position, rotation) in zip(poses, self._env.cameras, strict=True):
            pose[:3, :3], pose[:3, 3] = rotation, position
        matrix = rendering.intrinsics(PICTURE).astype(np.float32)
        return {
            "rgb": rgb, "depth": depth, "intrinsics": np.tile(matrix, (len(depth), 1, 1)),
            "T_base_camera": poses,
        }

    def _info(self) -> dict[str, Any]:
        env = self._env
        return {
            "instruction": env.instruction,
            "success": env.success,
            "subgoals": env.subgoals,
            "failure_kind": env.failure_kind or "",
        }


def _spaces(observations: str) -> dict[str, spaces.Box]:
    shown = {
        "position": spaces.Box(-_REACH, _REACH, (3,)),
        "rotation": spaces.Box(-1.001, 1.001, (4,)),
        "gripper_width": spaces.Box(0, 1, ()),
    }
    if observations == "cloud":
        shown["cloud"] = spaces.Box(-_REACH, _REACH, (CLOUD_POINTS, 3), np.float16)
    elif observations == "rgbd":
        shown["rgb"] = spaces.Box(0, 255, (2, PICTURE, PICTURE, 3), np.uint8)
        shown["depth"] = spaces.Box(0, rendering.MAX_DEPTH, (2, PICTURE, PICTURE))
        shown["intrinsics"] = spaces.Box(0, 1e4, (2, 3, 3))
        shown["T_base_camera"] = spaces.Box(-_REACH, _REACH, (2, 4, 4))
    return shown


for _name in TASKS:
    if environment_id(_name) not in gymnasium.registry:
        gymnasium.register(
            environment_id(_name), "bridgeact_jax.sim.gym:BridgeActEnv", kwargs={"task": _name}
        )
