"""Who plans an episode: asking, guarding, asking again, and keeping what was said.

The oracle needs no picture. The other planners get the first camera's picture and depth, the
learned one also what the camera in front of the table sees; what they answer is kept, so that an
evaluation that goes on, or is repeated, asks nothing twice.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation.checkpoints import check_reasoner
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.episodes import camera_offset, environment, plan_key
from bridgeact_jax.evaluation.thinking import Said
from bridgeact_jax.files import write_text
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.guard import Guard, Limits
from bridgeact_jax.planning.learned import LearnedPlanner
from bridgeact_jax.planning.oracle import EXACT, oracle_plan
from bridgeact_jax.planning.protocol import (
    Planner,
    PlanningError,
    PlanRequest,
    View,
    waypoints_of,
)
from bridgeact_jax.planning.recorded import FilePlanner, line
from bridgeact_jax.planning.wire import plan_from_json
from bridgeact_jax.sim import front_camera, kinematics
from bridgeact_jax.sim.arms import find_arm
from bridgeact_jax.sim.environment import SAFE_HIGH, SAFE_LOW, Environment, Observation
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.vla.checkpoint import load_vla
from bridgeact_jax.vla.speaker import Speaker

ANSWERS, TRANSCRIPTS = "answers", "transcripts"  # folders of an evaluation
PICTURE = 480  # pixels a side


class Consultation:
    """An episode's dealings with its planner.

    Attributes:
      verdict: why there is no plan: "no_plan" (no answer became one), "refused" (the guard refused
        as many as may be asked for), or None while there is one.
      said: what the planner said when it was asked first, and how many texts were no plan in all.
    """

    def __init__(
        self,
        env: Environment,
        condition: Condition,
        episode: int,
        planner: Callable[[], Planner],
        kept: str | None,
    ):
        """`planner` is called for a planner that sees; answers lie in files that begin as `kept`.

        None for `kept` keeps nothing.
        """
        self.verdict: str | None = None
        self.said = Said()
        self._env, self._condition, self._episode = env, condition, episode
        self._planner, self._kept = planner, kept
        self._answers, self._refused, self._alarms = 0, Counter(), Counter()

    def ask(
        self,
        observation: Observation,
        cloud: np.ndarray | None,
        truth: Waypoints | None = None,
        *,
        history: Sequence[str] = (),
        held: bool = False,
        adapt: Callable[[Waypoints], Waypoints | None] = lambda plan: plan,
    ) -> Waypoints | None:
        """A padded plan from here, None if there is none; `verdict` then says why.

        Args:
          cloud: (M, 3) metres, what the guard judges by.
          truth: what the oracle errs from; None for the whole plan from here.
          history: what has been done, for a planner that reads.
          held: whether the hand holds something.
          adapt: what the oracle makes of its answer when it sees it; None if it sees no way.
        """
        condition, refused = self._condition, []
        for _ in range(condition.asks if condition.guarded else 1):
            try:
                plan = self._answer(observation, truth, tuple(refused), tuple(history))
            except PlanningError:
                self._answers += 1
                self.verdict = "no_plan"
                return None
            self._answers += 1
            if condition.plans_by_oracle:
                plan = adapt(plan)
            if plan is None:
                break
            if not condition.guarded:
                return pad(plan)
            objections = guard_of(condition.arm).judge(plan, cloud, held=held)
            if not objections:
                return pad(plan)
            self._refused[objections[0].kind] += 1
            refused.append("; ".join(objection.reason for objection in objections))
        self.verdict = "refused"
        return None

    def alarm(self, kind: str) -> None:
        """Take note of why the arm had to stop on its way."""
        self._alarms[kind] += 1

    def record(self) -> dict:
        """For the episode's record: answers, plans refused by kind, alarms by kind."""
        return {
            "answers": self._answers,
            "refused": dict(sorted(self._refused.items())),
            "alarms": dict(sorted(self._alarms.items())),
        }

    def _answer(
        self,
        observation: Observation,
        truth: Waypoints | None,
        refused: tuple[str, ...],
        history: tuple[str, ...],
    ) -> Waypoints:
        env, condition = self._env, self._condition
        if condition.plans_by_oracle:
            return plan_of(env, condition, self._episode, truth, attempt=self._answers)
        request = request_of(env, condition, self._episode, observation, refused, history)
        answer = self._said(request)
        told = answer if "no_plan" in answer else answer["plan"]
        unparsable = self.said.unparsable + int(told["usage"].get("unparsable", 0))
        self.said = Said(self.said.words or told["words"], unparsable)
        if "no_plan" in answer:
            raise PlanningError(answer["no_plan"])
        return waypoints_of(plan_from_json(answer["plan"]), request)

    def _said(self, request: PlanRequest) -> dict:
        """What the planner said when it was asked this, or says now: a plan, or why not."""
        path = None if self._kept is None else Path(f"{self._kept}_{self._answers:02d}.json")
        if path is not None and path.exists():
            return json.loads(path.read_text())
        try:
            answer = json.loads(line(request, self._planner().plan(request)))
        except PlanningError as error:
            answer = {
                "request": request.key, "no_plan": str(error), "usage": error.usage,
                "words": error.words,
            }
        if path is not None:
            write_text(path, json.dumps(answer))
        return answer


def plan_of(
    env: Environment,
    condition: Condition,
    episode: int,
    truth: Waypoints | None = None,
    *,
    attempt: int = 0,
) -> Waypoints:
    """The oracle's answer, padded; `truth` defaults to the whole plan from the state `env` is in.

    Args:
      attempt: how many answers came before; each draws its errors anew.
    """
    plan = pad(env.waypoints() if truth is None else truth)
    if condition.shuffled:
        other = environment(condition, env.task.name)
        other.reset(condition.seed, episode + 1)
        start, plan = plan, pad(other.waypoints())
        for column, own in zip(plan[:3], start[:3], strict=True):
            column[0] = own[0]
    return oracle_plan(
        plan_key(env, condition, episode),
        plan,
        condition.plan_errors,
        camera=env.cameras[0],
        attempt=attempt,
    )


def request_of(
    env: Environment,
    condition: Condition,
    episode: int,
    observation: Observation,
    refused: tuple[str, ...] = (),
    history: tuple[str, ...] = (),
) -> PlanRequest:
    """What a planner is told of the state `env` is in; raises UserError without graphics."""
    picture, depth, camera = env.view(PICTURE)
    believed = camera.T_base_camera
    offset = camera_offset(env, condition, episode)
    camera = camera._replace(T_base_camera=believed._replace(position=believed.position + offset))
    views = [View(picture, camera, depth)]
    if condition.planner == "learned":
        views.append(View(env.front(), front_camera.camera()))
    return PlanRequest(
        tuple(views),
        env.instruction,
        observation.position,
        observation.rotation,
        float(env.world.gripper_open),
        refused,
        history,
        key=f"{env.task.name}/{condition.seed}/{episode}/{env.steps}",
    )


@cache
def guard_of(arm: str) -> Guard:
    """The guard of an arm's plans."""
    limits = Limits(SAFE_LOW, SAFE_HIGH, find_arm(arm).max_joint_speed)
    return Guard(limits, kinematics.shared(arm).follow)


def make_planner(condition: Condition, transcript: Path | None = None) -> Planner:
    """The planner that sees pictures. Raises UserError if there can be none such."""
    if condition.planner == "file":
        return _recorded(condition.plans)
    if condition.planner == "learned":
        return LearnedPlanner(_speaker(condition.planner_checkpoint), transcript)
    from bridgeact_jax.planning.remote import RemotePlanner

    return RemotePlanner(
        condition.planner_model,
        condition.planner_url,
        transcript=transcript,
        prices=condition.planner_prices,
    )


_recorded = cache(FilePlanner)
_speaker = cache(lambda checkpoint: Speaker(load_vla(checkpoint)))


NEEDED = {
    "remote": ("planner_url", "planner_model"), "file": ("plans",),
    "learned": ("planner_checkpoint",),
}  # fmt: skip


def check_planner(condition: Condition, tasks: Sequence[str]) -> None:
    """Raise UserError or UsageError if the condition's planner could not be asked of these tasks.

    Whether an endpoint answers is found out by the first question.
    """
    planner = condition.planner
    used = {f"--planner={planner}": planner != "oracle", "--guard": condition.guard,
            "--replan": condition.replan}  # fmt: skip
    for flag in used:
        if used[flag] and not condition.sees_plans:
            raise UsageError(
                f"evaluate: {flag} changes nothing: --policy={condition.policy} sees no plan"
            )
    if planner == "oracle":
        return
    for name in NEEDED[planner]:
        if getattr(condition, name) is None:
            raise UsageError(f"evaluate: --planner={planner} needs --{name}")
    foreign = dataclasses.replace(condition.errors, calibration=0.0)
    for axis in dataclasses.fields(EXACT):
        if getattr(foreign, axis.name) != axis.default:
            raise UsageError(
                f"evaluate: --{axis.name} is an error of --planner=oracle: --planner={planner} "
                "makes its own"
            )
    if condition.shuffled:
        raise UsageError("evaluate: --ablation=shuffled_guidance needs --planner=oracle")
    if planner == "learned":
        check_reasoner("--planner=learned", condition.planner_checkpoint, tasks)
    make_planner(condition)


def write_plans(out: Path, conditions: Mapping[str, Condition]) -> dict[str, float]:
    """Write what planners have said in `out` as files that --planner=file reads.

    Args:
      conditions: by label, in order; each with answers gets a file, `plans.jsonl` where there
        is one condition, else `plans_00.jsonl` and so on.

    Returns:
      what the answers of remote and learned planners cost: seconds, queries, tokens, whatever they
      know, added up. What is read from a file costs nothing.
    """
    cost = Counter()
    for number, condition in enumerate(conditions.values()):
        lines = []
        for path in sorted((out / ANSWERS).glob(f"{number:02d}_*.json")):
            answer = json.loads(path.read_text())
            if condition.planner != "file":
                cost.update(answer["plan"]["usage"] if "plan" in answer else answer["usage"])
            if "plan" in answer:
                lines.append(json.dumps(answer))
        if lines:
            name = "plans.jsonl" if len(conditions) == 1 else f"plans_{number:02d}.jsonl"
            write_text(out / name, "".join(line + "\n" for line in lines))
    return dict(cost)
