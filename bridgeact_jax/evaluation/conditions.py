"""What is evaluated: a policy, and how far plan, world and sensors depart from the ideal."""

import dataclasses
import os

from absl import flags

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.planning.oracle import EXACT, PlannerErrors
from bridgeact_jax.planning.remote import prices_of
from bridgeact_jax.sim.arms import ARMS, find_arm
from bridgeact_jax.sim.disturbances import CALM, Disturbance
from bridgeact_jax.training.exported import shipped_expert

POLICIES = ("expert", "expert_blind", "cloud_only", "spline", "chatvla2")
SEES_CLOUDS = ("expert", "cloud_only")
SEES_NO_PLAN = ("cloud_only", "chatvla2")
SHIPPED = ("expert", "expert_blind")  # policies of the expert that comes with the package
PLANNERS = ("oracle", "remote", "file", "learned")
ABLATIONS = ("none", "shuffled_guidance", "empty_cloud")
AIDS = ("none", "plan", "plan_and_sight")
Value = float | int | str


@dataclasses.dataclass(frozen=True)
class Condition:
    """What is evaluated; `checkpoint` is the workdir of a training run, or an exported directory.

    `planner_url`, `planner_model` and `planner_prices` (money per million tokens of questions and
    of answers) are the remote planner's, `plans` is the file planner's, `planner_checkpoint` the
    workdir of the learned planner's training. With `guard` a plan is judged before the arm moves
    and at most `asks` are asked for; with `replan` the way is watched, and planned anew from where
    the arm had to stop.
    `shuffled_guidance` gives each episode another episode's plan; `empty_cloud` shows no points.
    `aid` takes the fault from the plan, or from plan and clouds, to find out whose a failure was.
    `sample_steps` and `temperature` are the expert's sampler's; None is what the policy does.
    """

    policy: str
    checkpoint: str | None = None
    planner: str = "oracle"
    planner_url: str | None = None
    planner_model: str | None = None
    planner_prices: tuple[float, float] | None = None
    plans: str | None = None
    planner_checkpoint: str | None = None
    guard: bool = False
    asks: int = 3
    replan: bool = False
    arm: str = "panda"
    errors: PlannerErrors = EXACT
    disturbance: Disturbance = CALM
    ablation: str = "none"
    seed: int = 0
    aid: str = "none"
    sample_steps: int | None = None
    temperature: float | None = None

    @property
    def axes(self) -> dict[str, Value]:
        """The axes that are not off, with their values."""
        return {
            axis.name: value
            for part in (self.errors, self.disturbance)
            for axis in dataclasses.fields(part)
            if (value := getattr(part, axis.name)) != axis.default
        }

    @property
    def planning(self) -> dict[str, Value]:
        """How planning departs from one answer, followed blindly."""
        found = {} if self.planner_model is None else {"planner_model": self.planner_model}
        if self.planner_checkpoint is not None:
            found["planner_checkpoint"] = os.path.basename(self.planner_checkpoint.rstrip("/"))
        if self.guard:
            found |= {"guard": True, "asks": self.asks}
        return {**found, "replan": True} if self.replan else found

    @property
    def sampler(self) -> dict[str, Value]:
        """The sampler's settings that are not the policy's own."""
        found = {"sample_steps": self.sample_steps, "temperature": self.temperature}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def sees_clouds(self) -> bool:
        """Whether the policy looks at a cloud."""
        return self.policy in SEES_CLOUDS

    @property
    def sees_plans(self) -> bool:
        """Whether the policy goes by a plan."""
        return self.policy not in SEES_NO_PLAN

    @property
    def reasons(self) -> bool:
        """Whether a model of ours reads, thinks and says so before the arm moves."""
        learned = self.planner == "learned" and not self.plans_by_oracle
        return self.policy == "chatvla2" or learned

    @property
    def plans_by_oracle(self) -> bool:
        """Whether the oracle plans, as it does for whom is aided."""
        return self.planner == "oracle" or self.aid != "none"

    @property
    def guarded(self) -> bool:
        """Whether plans are judged; an exact plan is not."""
        return self.guard and self.aid == "none"

    @property
    def consults(self) -> bool:
        """Whether there is more to say of an episode's planning than that there was a plan."""
        return not self.plans_by_oracle or self.guarded or self.replan

    @property
    def plan_errors(self) -> PlannerErrors:
        """The planner's errors, none where it is aided."""
        return self.errors if self.aid == "none" else EXACT

    @property
    def cloud_errors(self) -> PlannerErrors:
        """Those of the planner's errors that the clouds share."""
        return EXACT if self.aid == "plan_and_sight" else self.errors

    @property
    def world(self) -> Disturbance:
        """The disturbance, with clouds as they should be where sight is aided."""
        if self.aid != "plan_and_sight":
            return self.disturbance
        sensing = [axis for axis in dataclasses.fields(CALM) if axis.metadata["sensing"]]
        calm = {axis.name: axis.default for axis in sensing}
        return dataclasses.replace(self.disturbance, **calm)

    @property
    def plan_can_fail(self) -> bool:
        """Whether exact waypoints would change anything."""
        exact = self.plans_by_oracle and self.plan_errors == EXACT
        return self.sees_plans and (not exact or self.shuffled or self.guarded)

    @property
    def sight_can_fail(self) -> bool:
        """Whether faultless clouds would change anything."""
        faults = self.world != dataclasses.replace(self, aid="plan_and_sight").world
        return self.sees_clouds and (faults or self.cloud_errors.calibration > 0 or self.blinded)

    @property
    def shuffled(self) -> bool:
        """Whether each episode gets another episode's plan."""
        return self.ablation == "shuffled_guidance" and self.aid == "none"

    @property
    def blinded(self) -> bool:
        """Whether clouds are shown without points."""
        return self.ablation == "empty_cloud" and self.aid != "plan_and_sight"

    def with_axis(self, name: str, value: Value) -> "Condition":
        """The condition with one axis, or the arm, set to `value`."""
        if name == "arm":
            return dataclasses.replace(self, arm=value)
        part = "errors" if hasattr(EXACT, name) else "disturbance"
        changed = dataclasses.replace(getattr(self, part), **{name: value})
        return dataclasses.replace(self, **{part: changed})


AXES = {axis.name: axis for part in (EXACT, CALM) for axis in dataclasses.fields(part)}
SWEEPS = {name: axis.metadata["sweep"] for name, axis in AXES.items()} | {"arm": tuple(ARMS)}


def sweep(condition: Condition, name: str) -> dict[str, Condition]:
    """{label: condition} for every value of the axis `name`.

    Raises UsageError for an unknown axis.
    """
    if name not in SWEEPS:
        raise UsageError(f"evaluate: unknown --sweep '{name}': {nearest(name, SWEEPS)}")
    return {f"{name}={value}": condition.with_axis(name, value) for value in SWEEPS[name]}


def define_flags() -> None:
    """A flag for who plans and how, for every axis and for the arm."""
    flags.DEFINE_enum("planner", "oracle", PLANNERS, "who plans")
    flags.DEFINE_string(
        "planner_url", None, "of the remote planner, an OpenAI-compatible endpoint: http://HOST/v1"
    )
    flags.DEFINE_string("planner_model", None, "the remote planner's name there")
    flags.DEFINE_list(
        "planner_prices", None,
        "its prices for a million tokens of questions and of answers, e.g. 2.5,10: adds up the cost"
    )
    flags.DEFINE_string("plans", None, "the file planner's recorded plans")
    flags.DEFINE_string(
        "planner_checkpoint", None, "the learned planner's: workdir of `bridgeact train-vla`"
    )
    flags.DEFINE_bool("guard", False, "judge plans before the arm moves, and ask again")
    flags.DEFINE_integer(
        "asks", 3, "answers to one question, at most, where the guard refuses", lower_bound=1
    )
    flags.DEFINE_bool("replan", False, "watch the way, and plan anew from where the arm must stop")
    for name, axis in AXES.items():
        default, values = axis.default, ", ".join(map(str, axis.metadata["sweep"]))
        text = f"{axis.metadata['help']} [sweep: {values}]"
        if isinstance(default, str):
            flags.DEFINE_enum(name, default, axis.metadata["sweep"], axis.metadata["help"])
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, text)
        else:
            flags.DEFINE_float(name, default, text)
    flags.DEFINE_string("arm", "panda", f"the robot: {', '.join(ARMS)}")


def condition_of(args: flags.FlagValues) -> Condition:
    """The condition that the flags describe.

    Raises UsageError for values out of range, UserError without a checkpoint if none is shipped.
    """

    def part(default):
        names = [axis.name for axis in dataclasses.fields(default)]
        return type(default)(**{name: args[name].value for name in names})

    return Condition(
        policy=args.policy,
        checkpoint=checkpoint_of(args.policy, args.checkpoint),
        planner=args.planner,
        planner_url=args.planner_url,
        planner_model=args.planner_model,
        planner_prices=prices_of(args.planner_prices),
        plans=args.plans,
        planner_checkpoint=args.planner_checkpoint,
        guard=args.guard,
        asks=args.asks,
        replan=args.replan,
        arm=find_arm(args.arm).name,
        errors=part(EXACT),
        disturbance=part(CALM),
        ablation=args.ablation,
        seed=args.seed,
    )


def checkpoint_of(policy: str, given: str | None) -> str | None:
    """The checkpoint `given`, or what `policy` takes without. UserError if that is not there."""
    if policy == "spline":
        return None
    if given is None and policy in SHIPPED:
        return str(shipped_expert())
    return given
