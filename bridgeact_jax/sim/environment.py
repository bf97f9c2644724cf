"""One task in physics, commanded at 10 Hz by tool poses in the base frame."""

import copy
import zlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim import cameras, kinematics, scene
from bridgeact_jax.sim.arms import find_arm
from bridgeact_jax.sim.book import Book
from bridgeact_jax.sim.disturbances import CALM, Disturbance
from bridgeact_jax.sim.events import Events, clutter_names
from bridgeact_jax.sim.sensing import measured, measured_depth
from bridgeact_jax.sim.tasks import find_task
from bridgeact_jax.sim.tasks.base import Step, tool_down
from bridgeact_jax.sim.world import World

CONTROL_PERIOD = 0.1  # seconds
SUBSTEPS = round(CONTROL_PERIOD / scene.TIMESTEP)
MAX_LEAD = 0.08  # metres by which a commanded position may lead the measured one
MAX_TURN = 0.5  # radians, likewise
OPEN_ABOVE, CLOSE_BELOW = 0.6, 0.4  # hysteresis of the gripper command
SAFE_LOW, SAFE_HIGH = np.array([0.15, -0.55, 0.0]), np.array([0.85, 0.55, 0.75])  # of the tool
CLOUD_POINTS = 2048

_WARNINGS = (
    mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC, mujoco.mjtWarning.mjWARN_BADCTRL,
)


class Observation(NamedTuple):
    """Measured state: time s, position (3,) m, rotation (4,) wxyz, gripper_width in [0, 1]."""

    time: float
    position: np.ndarray
    rotation: np.ndarray
    gripper_width: float


def episode_rng(stream: str, task: str, *numbers: int) -> np.random.Generator:
    """Generator for a named stream: streams with different names or numbers never coincide."""
    return np.random.default_rng([zlib.crc32(f"{stream}/{task}".encode()), *numbers])


class Environment:
    """A task's episodes, one at a time.

    Success is judged on physics alone. An episode ends at success, at the time limit, when the tool
    leaves the safe region or strikes an obstacle, or when the physics or a command is not finite.
    Several environments of a process share their inverse kinematics: use processes, not threads,
    to run them at once.

    Attributes:
      task: the `Task`.
      arm: the `Arm`.
      disturbance: what makes the episodes harder.
      instruction: what to do in this episode, in words.
      layout: where this episode's things started.
      world: the physics as tasks see it.
      cameras: this episode's depth cameras, see `cameras.camera_poses`; the first is the planner's.
      valid: False once the physics has diverged.
      scene: arguments of `scene.load` for its model.
      steps: control steps so far.
      events: what disturbs the world in this episode; None in a calm one.
    """

    def __init__(self, task: str, *, arm: str = "panda", disturbance: Disturbance = CALM):
        """`task` and `arm` are names; raises `UsageError` where there is none such."""
        self.task, self.arm, self.disturbance = find_task(task), find_arm(arm), disturbance
        self.scene = (task, arm, disturbance.distractors, disturbance.obstacle)
        self.model = copy.copy(scene.load(*self.scene))
        self.data = mujoco.MjData(self.model)
        self.world = World(self.model, self.data)
        self._ik = kinematics.shared(arm)
        self._num_joints = len(self.arm.joints)
        self._table = self.model.geom(scene.TABLE).id
        self._is_object = ~self.world.is_robot
        self._is_object[self._table] = False

    # ---- episode ------------------------------------------------------------------------------

    def reset(self, seed: int, episode: int, *, stream: str = "evaluation") -> Observation:
        """Start an episode; the same (task, stream, seed, episode) is always the same episode."""
        self._key = (stream, self.task.name, seed, episode)
        self.layout = self.task.draw(episode_rng(*self._key))
        self.instruction = self.task.instruction(self.layout)
        self.cameras = cameras.jittered_poses(
            self._rng("cameras"), turn=self.disturbance.camera_turn,
            shift=self.disturbance.camera_shift,
        )
        self.steps, self.valid, self._fault, self._frozen = 0, True, None, False
        self._place()
        self.events = None
        if self.disturbance.eventful:
            self.events = Events(
                self.disturbance, self.task, self.layout, self.world, self.plan(), self._rng
            )
            mujoco.mj_forward(self.model, self.data)
        clutter = clutter_names(self.disturbance.distractors)
        self.book = Book(
            self.world, targets=self.task.targets, distractors=(*self.task.twins, *clutter),
            subgoals=self.task.subgoals, grasps=self.task.grasps, period=CONTROL_PERIOD,
        )
        start = self._observe()
        self._commands = deque([(start.position, start.rotation, 1.0)] * self.disturbance.latency)
        return start

    def step(self, position: np.ndarray, rotation: np.ndarray, gripper: float) -> Observation:
        """One control step (0.1 s) towards a tool pose in the base frame; gripper 1 = open.

        The command is limited for safety: the tool stays the arm's `floor` above the table and
        leads the measured pose by at most `MAX_LEAD` and `MAX_TURN`. After the end things still
        move but the verdict stands; after what is not finite nothing moves.
        """
        if self._frozen:
            return self._observe()
        over = self.done
        self.steps += 1
        position, rotation = np.array(position, float), np.array(rotation, float)
        size = np.linalg.norm(rotation)
        if not (np.all(np.isfinite(position)) and np.isfinite(size + gripper) and size > 1e-6):
            self._frozen = True
            if not over:
                self._fault = "not_finite"
            return self._observe()
        self._commands.append((position, rotation / size, gripper))
        position, rotation, gripper = self._commands.popleft()
        if gripper > OPEN_ABOVE:
            self.world.gripper_open = True
        elif gripper < CLOSE_BELOW:
            self.world.gripper_open = False
        self._drive(*self._limit(position, rotation))
        if any(self.data.warning[warning].number for warning in _WARNINGS):
            self._frozen = True
            if not over:
                self._fault, self.valid = "diverged", False
        elif not over:
            self._judge()
        return self._observe()

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.ended or self.time > self.task.time_limit - 1e-9

    @property
    def ended(self) -> bool:
        """Whether it has ended otherwise than by the time limit."""
        return self.success or self._fault is not None

    @property
    def time(self) -> float:
        """Seconds since the start, by the control clock."""
        return self.steps * CONTROL_PERIOD

    @property
    def success(self) -> bool:
        """Whether the task has been done."""
        return self.book.success

    @property
    def wrong_object(self) -> bool:
        """Whether a distractor has been taken for the target."""
        return self.book.wrong_object

    @property
    def subgoals(self) -> dict[str, bool]:
        """The task's sub-goals in order, and whether each has been reached so far."""
        return dict(self.book.subgoals)

    @property
    def failure_kind(self) -> str | None:
        """Why the episode has not succeeded (so far), one of `book.FAILURES`; None once it has."""
        if self.success:
            return None
        return self._fault or self.book.failure()

    # ---- what is seen -------------------------------------------------------------------------

    def cloud(self) -> np.ndarray:
        """(CLOUD_POINTS, 3) float16 metres, base frame; see `cameras.cloud`.

        A function of the episode, the step and the physics only.
        """
        sensor, lasting = self._rng("sensor", self.steps), self._rng("sensor, lasting")
        return cameras.cloud(
            self.model, self.data, self.cameras, self._is_object, self._table,
            self._rng("cloud", self.steps), CLOUD_POINTS, distinct=self.disturbance.points,
            measure=lambda points, pose: measured(
                points, pose, self.disturbance, sensor, lasting
            ),
        )

    def plan(self) -> list[Step]:
        """What a perfect planner would say now, from the true poses, as before any grasp."""
        return self.task.plan(self.world, self.layout)

    def waypoints(self) -> Waypoints:
        """`plan` as waypoints after the tool's pose; NumPy arrays without padding."""
        return self.waypoints_of(self.plan())

    def waypoints_of(self, plan: list[Step]) -> Waypoints:
        """A plan as waypoints; waypoint 0 is the tool's pose now."""
        now = self._observe()
        position, rotation, gripper = zip(
            (now.position, now.rotation, float(self.world.gripper_open)),
            *(step[:3] for step in plan), strict=True,
        )
        return Waypoints(
            np.array(position, np.float32), np.array(rotation, np.float32),
            np.array(gripper, np.float32), np.int32(len(gripper)),
        )

    def render(self, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture (height, width, 3) uint8; a `UserError` says how to get graphics if need be."""
        from bridgeact_jax.sim import rendering

        return rendering.picture(self.scene, self.world, width, height)

    def front(self) -> np.ndarray:
        """What the camera in front of the table sees, uint8; see `front_camera`, `render`."""
        from bridgeact_jax.sim import rendering

        return rendering.front(self.scene, self.world)

    def rgbd(self, size: int = 240) -> tuple[np.ndarray, np.ndarray]:
        """Colour and depth pictures of `cameras` as they measure them; see `rendering.rgbd`."""
        return self._rgbd(self.cameras, size)

    def view(self, size: int = 240) -> tuple[np.ndarray, np.ndarray, Camera]:
        """What the planner's camera measures: `rgbd`'s first colour and depth, and the camera."""
        from bridgeact_jax.sim import rendering

        (rgb,), (depth,) = self._rgbd(self.cameras[:1], size)
        return rgb, depth, rendering.camera(self.cameras[0], size)

    # ---- inside -------------------------------------------------------------------------------

    def _rgbd(self, poses: Sequence[cameras.Pose], size: int) -> tuple[np.ndarray, np.ndarray]:
        from bridgeact_jax.sim import rendering

        rgb, depths = rendering.rgbd(self.scene, self.world, poses, size)
        matrix, lasting = rendering.intrinsics(size), self._rng("sensor, lasting")
        rng = self._rng("depth", self.steps)
        return rgb, np.stack(
            [measured_depth(x, matrix, self.disturbance, rng, lasting) for x in depths]
        )

    def _rng(self, name: str, *numbers: int) -> np.random.Generator:
        """The episode's generator for what is called `name`."""
        stream, *rest = self._key
        return episode_rng(f"{name}/{stream}", *rest, *numbers)

    def _place(self) -> None:
        """The state at the start of the layout."""
        model, data, layout = self.model, self.data, self.layout
        mujoco.mj_resetData(model, data)
        self.world.gripper_open = True
        self.task.place(self.world, layout)
        if self.world.masses_changed:  # constants that follow from them; this spoils the data
            state = [x.copy() for x in (data.qpos, data.mocap_pos, data.mocap_quat)]
            mujoco.mj_setConst(model, data)
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = state
        self._rotation = tool_down(layout.start_yaw)
        home = np.array(self.arm.home)
        joints = self._ik.solve(layout.start, self._rotation, home, iterations=60)
        n, opened = self._num_joints, self.arm.finger_range
        data.qpos[:n] = data.ctrl[:n] = self._joints = joints
        data.qpos[n : n + 2] = data.ctrl[n] = opened
        mujoco.mj_forward(model, data)

    def _observe(self) -> Observation:
        rotation = np.empty(4)
        mujoco.mju_mat2Quat(rotation, self.world.tool_matrix.reshape(-1))
        if rotation @ self._rotation < 0:
            rotation = -rotation
        self._rotation = rotation
        return Observation(self.time, self.world.tool, rotation, self.world.gripper_width)

    def _limit(self, position: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The command, kept within the floor and near the measured pose."""
        measured = self.world.tool
        lead = position - measured
        size = np.linalg.norm(lead)
        if size > MAX_LEAD:
            position = measured + lead * (MAX_LEAD / size)
        position[2] = max(position[2], self.arm.floor)

        turn = np.empty(3)
        mujoco.mju_subQuat(turn, rotation, self._rotation)
        size = np.linalg.norm(turn)
        if size > MAX_TURN:
            rotation = self._rotation.copy()
            mujoco.mju_quatIntegrate(rotation, turn, MAX_TURN / size)
        return position, rotation

    def _drive(self, position: np.ndarray, rotation: np.ndarray) -> None:
        """Joint targets move linearly to the new ones over the control period, speed permitting."""
        change = self._ik.solve(position, rotation, self._joints) - self._joints
        fastest = max(np.abs(change).max(), 1e-9)
        change *= min(1.0, self.arm.max_joint_speed * CONTROL_PERIOD / fastest)
        goal = self._joints + change
        path = np.linspace(self._joints, goal, SUBSTEPS + 1)[1:]
        self._joints = goal
        ctrl, model, data = self.data.ctrl, self.model, self.data
        n = self._num_joints
        ctrl[n] = self.arm.finger_range if self.world.gripper_open else 0.0
        for targets in path:
            ctrl[:n] = targets
            if self.events is not None:
                self.events.substep(scene.TIMESTEP)
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(model, data)

    def _judge(self) -> None:
        self.book.watch(self.world)
        self.book.record(self.task.judge(self.world, self.layout, self.book))
        tool = self.world.tool
        struck = self.events is not None and self.events.struck
        if not self.success and (struck or np.any((tool < SAFE_LOW) | (tool > SAFE_HIGH))):
            self._fault = "unsafe"
