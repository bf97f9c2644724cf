"""What the server remembers of one client: its plan, how far it is, what it was told to do.

The steps are those of `evaluation.policies.ExpertPolicy`: track at every control step, a new chunk
every so many of them and after each gripper event, samples drawn by (key, step). A session that is
observed at 10 Hz says to the bit what the policy says in process.
"""

import zlib
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from bridgeact_jax.datasets.depth_clouds import RADIUS, bounded, points_of
from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.gripper import Gripper, follow, settled
from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.serving.engine import Engine, Inputs
from bridgeact_jax.serving.limiter import PERIOD, Limits, Start, hold, limit
from bridgeact_jax.serving.observations import Poses, Request
from bridgeact_jax.sim.environment import CLOUD_POINTS

PUSHED = 0.05  # metres from where it is held, beyond which an arm is held where it is now


class Stale(Exception):
    """The observation is too old to act on; the message says why."""


class Step(NamedTuple):
    """What is answered to an observation.

    actions (H, 8) float32, limited {reason: rows}; progress and length of the plan, metres, and
    guidance (P, 3) m, its curve, None without a plan; cloud (N, 3) m, what a new chunk was sampled
    from, None where none was.
    """

    actions: np.ndarray
    limited: dict[str, int]
    progress: float | None = None
    length: float | None = None
    guidance: np.ndarray | None = None
    cloud: np.ndarray | None = None


class Session:
    """One client's arm. Only one thread may use it at a time.

    Args:
      execute: control steps after which a new chunk is sampled.
      key: `engine.key_data`, what samples are drawn from.
    """

    def __init__(self, engine: Engine, limits: Limits, *, execute: int, key: np.ndarray):
        self._engine, self._limits, self._execute = engine, limits, execute
        self.reset(key)

    def reset(self, key: np.ndarray | None = None) -> None:
        """Forget plan, history, clock and gripper; draw samples from `key` if one is given."""
        if key is not None:
            self._key = key
        self._plan: Poses | None = None
        self._state = None
        self._chunk: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._gripper: Gripper | None = None
        self._time: float | None = None
        self._counted: float | None = None
        self._last: tuple[float | None, np.ndarray] | None = None
        self._velocity = np.zeros(3)
        self._held: Start | None = None
        self._cloud: np.ndarray | None = None
        self._row = self._step = 0
        self._due = False

    @property
    def planned(self) -> bool:
        """Whether there is a plan."""
        return self._plan is not None

    @property
    def due(self) -> bool:
        """Whether a new chunk is to be sampled."""
        return self.planned and self._due

    def drop_plan(self) -> None:
        """Stand still until there is another plan."""
        self._plan = None

    def check_time(self, request: Request, oldest: float) -> None:
        """Raise Stale for an observation measured before an earlier one, or too long ago.

        Args:
          oldest: seconds from measuring to sending, by the client's clock, that are let pass.
        """
        if request.time is None:
            return
        if self._time is not None and request.time < self._time - PERIOD / 2:
            raise Stale(
                f"'time' went back from {self._time:.6g} to {request.time:.6g} s: an episode "
                "begins with 'request': 'reset'"
            )
        age = 0.0 if request.sent is None else request.sent - request.time
        if age < -PERIOD / 2:
            raise Stale(f"'time' lies {-age:.3g} s after 'sent': both must be of one clock")
        if age > oldest:
            raise Stale(f"measured {age:.3g} s before it was sent: at most {oldest:g} s are right")

    def observe(self, request: Request, *, heard: bool = True) -> None:
        """Take note of where the arm is; follow the plan if the request has a new one.

        Args:
          heard: whether the last answer reached the client: else none of its rows were executed.

        Raises UserError where the expert sees clouds and there is none.
        """
        if self._engine.sees_clouds and request.cloud is None and request.sight is None:
            raise UserError(
                "neither 'cloud' nor 'depth': this expert sees clouds; an empty one is (0, 3)"
            )
        self._measure(request)
        steps = self._elapsed(request)
        self._due |= not heard
        if self._state is not None:
            self._track(request, steps, heard)
        if self._gripper is None:
            width = request.gripper_width
            self._gripper = settled(np.isnan(width) or is_open(width))
        if request.gripper is not None:
            self._told(request.gripper)
        if request.plan is not None and not request.plan.same_as(self._plan):
            self._follow(request.plan, request)

    def inputs(self, request: Request) -> Inputs:
        """What the new chunk is sampled from."""
        self._cloud = self._look(request)
        return Inputs(self._state, self._cloud, self._key, self._step)

    def accept(self, chunk: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """The new chunk: position (H, 3), rotation (H, 4), gripper (H,)."""
        self._chunk, self._row, self._due = chunk, 0, False

    def answer(self, request: Request) -> Step:
        """The rows that are left of the chunk, or standing still without a plan; limited."""
        start = Start(
            request.position.astype(float), request.rotation.astype(float), self._velocity,
            float(self._gripper.command),
        )  # fmt: skip
        if not self.planned:
            held = self._held
            if held is None or np.linalg.norm(held.position - start.position) > PUSHED:
                held = self._held = start
            return Step(*limit(self._limits, start, hold(held, self._engine.horizon)))
        rows = np.arange(self._row, self._row + self._engine.horizon)
        rows = np.minimum(rows, self._engine.horizon - 1)
        position, rotation, wanted = (column[rows] for column in self._chunk)
        gripper, standing = [], self._gripper
        for value in wanted:
            standing = follow(standing, value)
            gripper.append(standing.command)
        actions = np.column_stack([position, rotation, gripper]).astype(np.float32)
        guidance, cloud, self._cloud = self._state.guidance, self._cloud, None
        return Step(
            *limit(self._limits, start, actions),
            progress=float(np.asarray(self._state.progress)[0]),
            length=float(np.asarray(guidance.progress)[0, -1]),
            guidance=np.asarray(guidance.position)[0],
            cloud=None if cloud is None else cloud[np.isfinite(cloud).all(axis=1)],
        )

    # ---- inside -------------------------------------------------------------------------------

    def _elapsed(self, request: Request) -> int:
        """Control steps since those counted before; what is left of a step counts next time."""
        before, now = self._counted, request.time
        self._counted = now
        if now is not None:
            self._time = now
        if self._state is None:
            return 0
        if now is None or before is None:
            self._due = True  # how many rows were executed is not known
            return 1
        steps = max(0, round((now - before) / PERIOD))
        if steps > self._engine.horizon:
            return self._engine.horizon
        self._counted = before + steps * PERIOD
        return steps

    def _measure(self, request: Request) -> None:
        """Keep the arm's velocity, m/s; without `time` observations count as a step apart."""
        before, self._last = self._last, (request.time, request.position)
        if before is None:
            return
        known = request.time is not None and before[0] is not None
        seconds = max(request.time - before[0], PERIOD / 2) if known else PERIOD
        self._velocity = (request.position.astype(float) - before[1]) / seconds

    def _follow(self, plan: Poses, request: Request) -> None:
        """Begin a plan at the pose of `request`, which has been observed."""
        waypoints = Waypoints(
            np.concatenate([request.position[None], plan.position]),
            np.concatenate([request.rotation[None], plan.rotation]),
            np.concatenate([self._gripper.command[None], plan.gripper]),
            np.int32(1 + len(plan.position)),
        )
        if self._state is None:
            self._state = self._engine.start(waypoints, request.gripper_width)
        else:
            self._state = self._engine.replace(self._state, waypoints)
        self._plan, self._due, self._held = plan, True, None

    def _track(self, request: Request, steps: int, heard: bool) -> None:
        """The state `steps` control steps later, on the straight way to the measured pose."""
        past = self._state.proprioception
        was = np.asarray(past.position)[0, -1], np.asarray(past.rotation)[0, -1]
        for step in range(1, steps + 1):
            before = self._gripper.command
            self._execute_row(heard)
            if step == steps and request.gripper is not None:
                self._told(request.gripper)
            pose = _between(was, (request.position, request.rotation), step / steps)
            self._state = self._engine.track(
                self._state, *pose, self._gripper.command, request.gripper_width
            )
            self._step += 1
            self._due |= bool(self._gripper.command != before) or self._step % self._execute == 0

    def _execute_row(self, heard: bool) -> None:
        """Take the row of the last answer that was due as executed, if it was heard."""
        wanted = self._gripper.command
        if heard and self.planned and self._chunk is not None:
            wanted = self._chunk[2][min(self._row, self._engine.horizon - 1)]
            self._row += 1
        self._gripper = follow(self._gripper, wanted)

    def _told(self, gripper: float) -> None:
        """The command that the client has sent to its gripper, which may be another."""
        command = np.float32(is_open(gripper))
        if command != self._gripper.command:
            self._gripper = Gripper(command, np.zeros_like(self._gripper.stood))

    def _look(self, request: Request) -> np.ndarray:
        """(CLOUD_POINTS, 3) float32; what is missing is infinitely far away."""
        cloud = np.full((CLOUD_POINTS, 3), np.inf, np.float32)
        if not self._engine.sees_clouds:
            return cloud
        rng = np.random.default_rng([zlib.crc32(self._key.tobytes()), self._step])
        lifted = request.cloud is None
        points = points_of(*request.sight[:3]) if lifted else request.cloud
        if len(points) > CLOUD_POINTS or lifted:
            offset = points - request.position
            points = points[np.einsum("ij,ij->i", offset, offset) <= RADIUS**2]
        if lifted and len(points):
            points = bounded(rng, points, has_table=True)
        elif len(points) > CLOUD_POINTS:
            points = points[rng.choice(len(points), CLOUD_POINTS, replace=False)]
        cloud[: len(points)] = points
        return cloud


def _between(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pose at `share` of the way from one (position, rotation) to the other."""
    if share == 1:
        return other
    turn = Slerp([0, 1], Rotation.from_quat(np.stack([one[1], other[1]]), scalar_first=True))
    position = (1 - share) * one[0] + share * other[0]
    rotation = turn(share).as_quat(scalar_first=True)
    return position.astype(np.float32), rotation.astype(np.float32)
