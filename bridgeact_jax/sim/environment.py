"""One task in physics, commanded at 10 Hz by tool poses in the base frame."""

import zlib
from typing import NamedTuple

import mujoco
import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim import cameras, kinematics, robot, scene
from bridgeact_jax.sim import tasks as task_table

CONTROL_PERIOD = 0.1  # seconds
SUBSTEPS = round(CONTROL_PERIOD / scene.TIMESTEP)
MAX_LEAD = 0.08  # metres by which a commanded position may lead the measured one
MAX_TURN = 0.5  # radians, likewise
OPEN_ABOVE, CLOSE_BELOW = 0.6, 0.4  # hysteresis of the gripper command
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

    Success is judged on physics alone. An episode ends at success, at the time limit or when the
    physics (or a command) is not finite. Several environments of a process share their model and
    their inverse kinematics: use processes, not threads, to run them at once.
    """

    def __init__(self, task: str):
        """`task` is a key of `tasks.TASKS`; raises `UsageError` otherwise."""
        self.task = task_table.find_task(task)
        self.model = scene.load(self.task.posts, self.task.with_bin)
        self.data = mujoco.MjData(self.model)
        self._ik = kinematics.shared()
        self._tcp = self.model.site(robot.TCP_SITE).id
        self._finger = self.model.joint("finger_left").qposadr[0]
        self._table = self.model.geom(scene.TABLE).id
        roots = self.model.body_rootid[self.model.geom_bodyid]
        self._is_robot = roots == self.model.body("link0").id
        self._is_object = ~self._is_robot
        self._is_object[self._table] = False
        self._target_body = self.model.body(scene.TARGET).id
        self._distractor_body = self.model.body(scene.DISTRACTOR).id

    @property
    def instruction(self) -> str:
        """What to do, in words."""
        return self.task.instruction

    # ---- episode ------------------------------------------------------------------------------

    def reset(self, seed: int, episode: int, *, stream: str = "evaluation") -> Observation:
        """Start an episode; the same (task, stream, seed, episode) is always the same episode."""
        self._key = (stream, self.task.name, seed, episode)
        self.layout = task_table.draw_layout(self.task, episode_rng(*self._key))
        self.steps = 0
        self.success, self.wrong_object, self.valid = False, False, True
        self._dwell = self._wrong_dwell = 0.0
        self._closed_once = self._lifted = self._let_go = self._lost = False
        self._gripper_open = True
        mujoco.mj_resetData(self.model, self.data)

        layout = self.layout
        rotation = task_table.tool_down(layout.start_yaw)
        joints = self._ik.solve(layout.start, rotation, robot.HOME, iterations=60)
        self.data.qpos[:7] = self._joints = joints
        self.data.qpos[self._finger : self._finger + 2] = robot.FINGER_RANGE
        self.data.ctrl[:7], self.data.ctrl[7] = joints, robot.FINGER_RANGE
        self._place(scene.TARGET, layout.target, layout.target_yaw)
        self._place(scene.DISTRACTOR, layout.distractor, layout.distractor_yaw)
        if self.task.with_bin:
            self._place(scene.BIN, layout.bin, layout.bin_yaw)
        mujoco.mj_forward(self.model, self.data)
        self._rotation = rotation
        self._start_height = self._target_position()[2]
        return self._observe()

    def step(self, position: np.ndarray, rotation: np.ndarray, gripper: float) -> Observation:
        """One control step (0.1 s) towards a tool pose in the base frame; gripper 1 = open.

        The command is limited for safety: the tool stays `robot.FLOOR` above the table and leads
        the measured pose by at most `MAX_LEAD` and `MAX_TURN`. After the end things still move but
        the verdict stands; after an invalid state or command nothing moves.
        """
        if not self.valid:
            return self._observe()
        over = self.done
        self.steps += 1
        position, rotation = np.array(position, float), np.array(rotation, float)
        size = np.linalg.norm(rotation)
        if not (np.all(np.isfinite(position)) and np.isfinite(size + gripper) and size > 1e-6):
            self.valid = self.success = False
            return self._observe()
        if gripper > OPEN_ABOVE:
            self._gripper_open = True
        elif gripper < CLOSE_BELOW:
            self._gripper_open = False
        self._drive(*self._limit(position, rotation / size))
        if any(self.data.warning[warning].number for warning in _WARNINGS):
            self.valid = self.success = False
        elif not over:
            self._judge()
        return self._observe()

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.success or not self.valid or self.time > self.task.time_limit - 1e-9

    @property
    def time(self) -> float:
        """Seconds since the start, by the control clock."""
        return self.steps * CONTROL_PERIOD

    @property
    def failure_kind(self) -> str | None:
        """Why the episode has not succeeded (so far); None once it has.

        `invalid`: the physics or a command was not finite. `wrong_object`: the distractor was
        lifted or reached. `dropped`: the target was lifted and lost while the hand was told to
        hold. `misplaced`: lifted, then released elsewhere. `missed_grasp`: the hand closed and the
        target was never lifted. `timeout`: anything else.
        """
        if self.success:
            return None
        if not self.valid:
            return "invalid"
        if self.wrong_object:
            return "wrong_object"
        if self._lost:
            return "dropped"
        if self._let_go:
            return "misplaced"
        if self._closed_once and not self._lifted:
            return "missed_grasp"
        return "timeout"

    # ---- what is seen -------------------------------------------------------------------------

    def cloud(self) -> np.ndarray:
        """(CLOUD_POINTS, 3) float16 metres, base frame; see `cameras.cloud`.

        A function of the episode, the step and the physics only.
        """
        stream, *rest = self._key
        rng = episode_rng(f"cloud/{stream}", *rest, self.steps)
        return cameras.cloud(
            self.model, self.data, self._is_object, self._table, rng, CLOUD_POINTS
        )

    def waypoints(self) -> Waypoints:
        """What a perfect planner would say now, from the true poses; waypoint 0 is the tool's pose.

        Arrays are NumPy, without padding. Grasping tasks are planned as before the grasp.
        """
        now = self._observe()
        steps = task_table.plan(
            self.task, self._target_position(), self._target_yaw(), self.layout
        )
        position, rotation, gripper = zip(
            (now.position, now.rotation, float(self._gripper_open)), *steps, strict=True
        )
        return Waypoints(
            np.array(position, np.float32), np.array(rotation, np.float32),
            np.array(gripper, np.float32), np.int32(len(gripper)),
        )

    def render(self, width: int = 320, height: int = 240) -> np.ndarray:
        """A picture (height, width, 3) uint8; a `UserError` says how to get graphics if need be."""
        from bridgeact_jax.sim import rendering

        return rendering.picture(self.task, self.data, width, height)

    # ---- inside -------------------------------------------------------------------------------

    def _place(self, name: str, xy: np.ndarray, yaw: float) -> None:
        rotation = task_table.yaw_quaternion(yaw)
        mocap = self.model.body(name).mocapid[0]
        if mocap >= 0:
            self.data.mocap_pos[mocap] = (*xy, 0.0)
            self.data.mocap_quat[mocap] = rotation
        else:
            self.data.joint(name).qpos = (*xy, scene.CUBE_HALF, *rotation)

    def _observe(self) -> Observation:
        rotation = np.empty(4)
        mujoco.mju_mat2Quat(rotation, self.data.site_xmat[self._tcp])
        if rotation @ self._rotation < 0:
            rotation = -rotation
        self._rotation = rotation
        width = 2 * self.data.qpos[self._finger] / robot.MAX_WIDTH
        return Observation(
            self.time, self.data.site_xpos[self._tcp].copy(), rotation, float(np.clip(width, 0, 1))
        )

    def _limit(self, position: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The command, kept within the floor and near the measured pose."""
        measured = self.data.site_xpos[self._tcp]
        lead = position - measured
        size = np.linalg.norm(lead)
        if size > MAX_LEAD:
            position = measured + lead * (MAX_LEAD / size)
        position[2] = max(position[2], robot.FLOOR)

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
        change *= min(1.0, robot.MAX_JOINT_SPEED * CONTROL_PERIOD / max(np.abs(change).max(), 1e-9))
        goal = self._joints + change
        path = np.linspace(self._joints, goal, SUBSTEPS + 1)[1:]
        self._joints = goal
        ctrl, model, data = self.data.ctrl, self.model, self.data
        ctrl[7] = robot.FINGER_RANGE if self._gripper_open else 0.0
        for targets in path:
            ctrl[:7] = targets
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(model, data)

    def _target_position(self) -> np.ndarray:
        return self.data.xpos[self._target_body].copy()

    def _target_yaw(self) -> float:
        """Yaw of the target within +-45 degrees: the nearest of its four equal directions."""
        matrix = self.data.xmat[self._target_body].reshape(3, 3)
        side = matrix[:2, np.argmax(np.hypot(*matrix[:2]))]  # the most level of its axes
        yaw = np.arctan2(side[1], side[0])
        return (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4

    def _touched(self) -> bool:
        """Whether any part of the robot touches the target."""
        pairs = self.data.contact.geom
        bodies = self.model.geom_bodyid[pairs]
        return bool(np.any((bodies == self._target_body).any(1) & self._is_robot[pairs].any(1)))

    def _judge(self) -> None:
        if self.task.posts:
            tool = self.data.site_xpos[self._tcp]
            self._dwell = self._dwelled(self._dwell, tool, self.layout.target)
            self._wrong_dwell = self._dwelled(self._wrong_dwell, tool, self.layout.distractor)
            self.wrong_object |= self._wrong_dwell >= task_table.REACH_HOLD - 1e-9
            self.success = self._dwell >= task_table.REACH_HOLD - 1e-9
            return
        height = self._target_position()[2] - self._start_height
        wrong_height = self.data.xpos[self._distractor_body][2] - scene.CUBE_HALF
        self.wrong_object |= bool(wrong_height >= task_table.WRONG_LIFT)
        self._closed_once |= not self._gripper_open
        self._lifted |= bool(height >= task_table.WRONG_LIFT)
        if self._lifted and not (self._lost or self._let_go):
            if self._gripper_open:
                self._let_go = True
            elif height < task_table.WRONG_LIFT and not self._touched():
                self._lost = True
        if self.task.with_bin:
            self.success = self._rests_in_bin()
        else:
            raised = height >= task_table.LIFT_SUCCESS
            self._dwell = self._dwell + CONTROL_PERIOD if raised else 0.0
            self.success = self._dwell >= task_table.LIFT_HOLD - 1e-9

    def _dwelled(self, before: float, tool: np.ndarray, post: np.ndarray) -> float:
        near = np.linalg.norm(tool - task_table.goal_above(post)) <= task_table.REACH_TOLERANCE
        return before + CONTROL_PERIOD if near else 0.0

    def _rests_in_bin(self) -> bool:
        position = self._target_position()
        local = task_table.in_bin_frame(position, self.layout.bin, self.layout.bin_yaw)
        matrix = self.data.xmat[self._target_body].reshape(3, 3)
        top = position[2] + scene.CUBE_HALF * np.abs(matrix[2]).sum()
        speed = np.abs(self.data.joint(scene.TARGET).qvel[:3]).max()
        return bool(
            self._gripper_open
            and np.all(np.abs(local) < scene.BIN_INNER_HALF)
            and top < scene.BIN_HEIGHT
            and speed < task_table.REST_SPEED
            and not self._touched()
        )
