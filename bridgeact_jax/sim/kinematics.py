"""Inverse kinematics of an arm: joint angles that bring the tool frame to a pose."""

import functools

import mink
import mujoco
import numpy as np

from bridgeact_jax.geometry.guidance import METRES_PER_RADIAN
from bridgeact_jax.sim.arms import TCP_SITE, Arm, find_arm

POSITION_TOLERANCE = 2e-4  # metres
ROTATION_TOLERANCE = 2e-3  # radians


class Kinematics:
    """Differential inverse kinematics with joint limits, resting near the home pose."""

    def __init__(self, arm: Arm) -> None:
        spec = mujoco.MjSpec()
        arm.add(spec, False, False)
        self._model = spec.compile()
        self._configuration = mink.Configuration(self._model)
        self._frame = mink.FrameTask(
            TCP_SITE, "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-3
        )
        posture = mink.PostureTask(self._model, cost=2e-3)
        posture.set_target(np.array(arm.home))
        self._home = np.array(arm.home)
        self._tasks = [self._frame, posture]
        self._limits = [mink.ConfigurationLimit(self._model)]

    def solve(
        self, position: np.ndarray, rotation: np.ndarray, start: np.ndarray, iterations: int = 6
    ) -> np.ndarray:
        """Joint angles (n,) rad for a tool pose, as near to it as `iterations` get.

        Args:
          position: (3,) metres, base frame.
          rotation: (4,) unit quaternion wxyz.
          start: (n,) joint angles to begin from, within limits.
        """
        configuration = self._configuration
        configuration.update(start)
        self._frame.set_target(mink.SE3(np.concatenate([rotation, position])))
        for _ in range(iterations):
            error = self._frame.compute_error(configuration)
            if (
                np.abs(error[:3]).max() < POSITION_TOLERANCE
                and np.abs(error[3:]).max() < ROTATION_TOLERANCE
            ):
                break
            try:
                velocity = mink.solve_ik(
                    configuration, self._tasks, 1.0, "daqp", damping=1e-6, limits=self._limits
                )
            except mink.NoSolutionFound:
                break
            configuration.integrate_inplace(velocity, 1.0)
        return configuration.q.copy()

    def follow(
        self, position: np.ndarray, rotation: np.ndarray, iterations: int = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """How near the arm gets to each pose of a path, begun from its home pose.

        Args:
          position: (S, 3) metres, base frame.
          rotation: (S, 4) unit quaternions wxyz.

        Returns:
          residual (S,) metres, what is left of the rotation at `METRES_PER_RADIAN`, and joints
          (S, n) rad.
        """
        joints, residuals, start = [], [], self._home
        for pose in zip(position, rotation, strict=True):
            start = self.solve(*pose, start, iterations)
            self._configuration.update(start)
            error = self._frame.compute_error(self._configuration)
            turn = METRES_PER_RADIAN * np.linalg.norm(error[3:])
            residuals.append(np.linalg.norm(error[:3]) + turn)
            joints.append(start)
        return np.array(residuals), np.array(joints)


@functools.cache
def shared(arm: str = "panda") -> Kinematics:
    """The process's solver for the arm of that name; nothing is kept between its solves."""
    return Kinematics(find_arm(arm))
