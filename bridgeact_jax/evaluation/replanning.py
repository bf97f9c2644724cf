"""The way watched while the arms move, and a plan from where one of them had to stop."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from bridgeact_jax.evaluation import closed_loop
from bridgeact_jax.evaluation.planners import Consultation, guard_of
from bridgeact_jax.geometry.guidance import SAMPLES_PER_SEGMENT, Waypoints, is_open
from bridgeact_jax.planning.detour import detour
from bridgeact_jax.planning.watch import Alarm, Seen, Watch
from bridgeact_jax.sim.environment import Environment, Observation
from bridgeact_jax.sim.follower import PADDED_WAYPOINTS

EVERY = 2  # control steps from cloud to cloud
STAND = 4  # control steps before planning anew, so that what moves is seen where it ends
MOST = 5  # re-plans of an episode
EMPTY_WIDTH = 0.05  # of a closed gripper that holds nothing, at most
NEAR = 0.15  # metres from the tool, within which an expert follows what it sees
STILL_ABOVE = 0.03  # metres of the tool above a grasp, to go on down to it from aside
ARRIVED = 1e-3  # metres of progress


class Replanner:
    """Watches a batch of arms and plans anew for those that have to stop.

    After `MOST` re-plans an arm stops for what blocks its path alone, and then for good.
    """

    def __init__(
        self,
        envs: list[Environment],
        consultations: list[Consultation],
        plans: list[Waypoints],
        observations: list[Observation],
        cloud_of: Callable[[int], np.ndarray],
        *,
        sighted: bool,
    ):
        """`plans` and `observations` are padded to the batch; `cloud_of` casts an arm's cloud.

        A `sighted` policy sees the cloud about its hand: a target that has moved there is its own
        business.
        """
        batched = jax.tree.map(lambda *x: np.stack(x), *plans)
        width = np.array([o.gripper_width for o in observations], np.float32)
        self._state = closed_loop.start(batched, width)
        self._envs, self._consultations, self._cloud_of = envs, consultations, cloud_of
        self._courses = [_Course(plan, cloud_of(i)) for i, plan in enumerate(plans[: len(envs)])]
        self._step, self._sighted = -1, sighted

    def stops(
        self, observations: list[Observation], gripper: np.ndarray, active: Iterable[int]
    ) -> dict[int, Observation]:
        """Once every control step, before it: the arms of `active` that stand, and where.

        Args:
          observations: of the batch, padded.
          gripper: (B,) commands last sent.
        """
        self._step += 1
        if self._step == 0:
            return {}
        columns = [
            np.array([getattr(o, name) for o in observations], np.float32)
            for name in ("position", "rotation", "gripper_width")
        ]
        gripper = np.asarray(gripper, np.float32)
        self._state = closed_loop.track(self._state, *columns[:2], gripper, columns[2])
        progress = np.asarray(self._state.progress)
        standing = {}
        for arm in active:
            course = self._courses[arm]
            if course.alarm is not None:
                course.stood += 1
                standing[arm] = course.stopped
                continue
            cloud = self._cloud_of(arm) if self._step % EVERY == 0 else None
            seen = Seen(
                observations[arm].position, observations[arm].rotation,
                observations[arm].gripper_width, float(gripper[arm]), float(progress[arm]), cloud,
            )  # fmt: skip
            if course.alarmed(seen, NEAR if self._sighted else 0.0):
                self._consultations[arm].alarm(course.alarm.kind)
                course.stopped, course.stood = observations[arm], 1
                standing[arm] = course.stopped
        return standing

    def thinks(self, arm: int) -> bool:
        """Whether an arm that stands has not stood for long enough to be given a new plan."""
        return self._courses[arm].stood < STAND

    def plan(self, arm: int, observation: Observation) -> Waypoints | None:
        """A plan from here for an arm that stands; None if it is to stay where it is."""
        course, env = self._courses[arm], self._envs[arm]
        held = not env.world.gripper_open and observation.gripper_width > EMPTY_WIDTH
        held &= course.alarm.kind != "object_lost"
        hand = "open" if env.world.gripper_open else "closed " + ("on something" if held else "")
        course.history.append(
            f"After {env.time:.1f} s the arm stopped: {course.alarm.reason}. "
            f"The hand is {hand.strip()}."
        )
        consultation = self._consultations[arm]
        if course.replans == MOST:
            consultation.verdict = "refused"
            return None
        rest, source = rest_of(env, course.plan, course.source, self._ahead(arm), held=held)
        cloud = self._cloud_of(arm)

        def around(plan: Waypoints) -> Waypoints | None:
            found = detour(plan, cloud, guard_of(env.arm.name), held=held)
            if found is not None and int(found.count) > PADDED_WAYPOINTS:
                found = None
            if found is None and course.alarm.kind != "path_blocked":
                found = plan
            if found is not None:
                course.source = sources_of(found, plan, source)
            return found

        plan = consultation.ask(
            observation, cloud, rest, history=course.history, held=held, adapt=around
        )
        if plan is not None:
            course.set_out(plan, cloud, held=held)
            self._state = closed_loop.replace(self._state, arm, plan)
        return plan

    def _ahead(self, arm: int) -> int:
        """Number of the first waypoint of the arm's plan that lies ahead of it."""
        ends = np.asarray(self._state.guidance.progress[arm])[:: SAMPLES_PER_SEGMENT + 1]
        return int(np.sum(ends <= self._state.progress[arm] + ARRIVED))


class _Course:
    """The plan an arm is on, and why and where it stands, if it does.

    `source` says which waypoint of the whole plan each of the plan is or leads to.
    """

    def __init__(self, plan: Waypoints, cloud: np.ndarray):
        self.stopped: Observation | None = None
        self.stood = 0  # control steps since
        self.source = np.arange(len(plan.position))
        self.replans, self.history = -1, []
        self.set_out(plan, cloud, held=False)

    def set_out(self, plan: Waypoints, cloud: np.ndarray, *, held: bool) -> None:
        """A new plan, and what is seen as it is issued."""
        self.plan, self.alarm = plan, None
        self.replans += 1
        self._watch = Watch(plan, cloud, held=held)
        self._state = self._watch.start()

    def alarmed(self, seen: Seen, near: float) -> bool:
        """Whether the arm has to stop; `alarm` then says why.

        A target that has moved within `near` metres of the tool is let be.
        """
        self._state, alarms = self._watch.step(self._state, seen)
        self.alarm = next((alarm for alarm in alarms if self._heeds(alarm, seen, near)), None)
        return self.alarm is not None

    def _heeds(self, alarm: Alarm, seen: Seen, near: float) -> bool:
        if self.replans == MOST:
            return alarm.kind == "path_blocked"
        away = np.inf if alarm.where is None else np.linalg.norm(alarm.where - seen.position)
        return alarm.kind != "target_moved" or away >= near


def rest_of(
    env: Environment, plan: Waypoints, source: np.ndarray, ahead: int, *, held: bool
) -> tuple[Waypoints, np.ndarray]:
    """What is left to do, from the tool's pose now: waypoints without padding, and their sources.

    With something in the hand that is what is left of `plan`, whose waypoint `ahead` is the next.
    Else it is what a perfect planner says now, from the approach to what comes next: nothing that
    has been put down is taken up again.
    """
    whole = env.waypoints()
    count, last = int(plan.count), int(whole.count) - 1
    if held:
        rows = np.arange(min(ahead, count - 1), count)
        return _after(whole, plan, rows), np.concatenate([[0], source[rows]])
    here = int(source[ahead]) if ahead < count else last
    rows = np.arange(min(approach(whole, here), last), last + 1)
    return _after(whole, whole, rows), np.concatenate([[0], rows])


def approach(whole: Waypoints, here: int) -> int:
    """Number of the waypoint of a whole plan at which to begin again, when `here` comes next.

    That is the one before the next closing of the hand, above what is to be grasped, or the closing
    itself if the hand is on its way down to it, still high enough, and no farther aside than above.
    """
    opened = np.asarray(is_open(np.asarray(whole.gripper)))[: int(whole.count)]
    opened[0] = True  # as at the start, whatever the hand does now
    events = np.flatnonzero(opened[1:] != opened[:-1]) + 1
    first = max((event + 1 for event in events if opened[event] and event < here), default=1)
    closing = min((event for event in events if not opened[event] and event >= first), default=1)
    *aside, above = np.asarray(whole.position)[0] - np.asarray(whole.position)[closing]
    if here == closing and above > max(STILL_ABOVE, np.hypot(*aside)):
        return here
    return min(here, max(first, closing - 1))


def sources_of(detoured: Waypoints, plan: Waypoints, source: np.ndarray) -> np.ndarray:
    """Sources (K,) of a plan with waypoints added on the way, from `source`, those of the plan."""
    found, row = [], 0
    for position in np.asarray(detoured.position)[: int(detoured.count)]:
        found.append(source[row])
        if np.allclose(position, plan.position[row], atol=1e-6):
            row = min(row + 1, len(source) - 1)
    return np.array(found)


def _after(now: Waypoints, plan: Waypoints, rows: np.ndarray) -> Waypoints:
    """The waypoints `rows` of `plan` after waypoint 0 of `now`."""
    columns = (
        np.concatenate([np.asarray(a)[:1], np.asarray(b)[rows]])
        for a, b in zip(now[:3], plan[:3], strict=True)
    )
    return Waypoints(*columns, np.int32(len(rows) + 1))
