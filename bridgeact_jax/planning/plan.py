"""One plan for one picture: printed, and drawn on the picture.

The picture is that of a simulated episode (--task), or a file with its camera, its instruction and
the tool's state. The camera's file is JSON: fx, fy, cx, cy in pixels, where pixel (0, 0) is the
centre of the top left one, and T_base_camera, the 16 numbers of the camera's pose in the robot's
base, row by row (x right, y down, z forward; metres). The state is JSON too: position, metres, and
rotation, w x y z, of the tool in the base, and gripper, 1 = open. A depth picture is a 16-bit PNG
in millimetres or an .npy array in metres, 0 where nothing was measured, of the picture's size.

--out=NAME.png shows the picture with the plan drawn on it; NAME.json holds the plan, which
--planner=file --plans=NAME.json repeats for the same picture, instruction and state.
"""

import io
import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from PIL import Image

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.files import write_bytes, write_text
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.anchors import anchors_of
from bridgeact_jax.planning.guard import Guard, Limits, Refusal
from bridgeact_jax.planning.oracle import WRONG_WAYPOINTS, PlannerErrors, oracle_plan
from bridgeact_jax.planning.protocol import (
    Plan,
    Planner,
    PlanRequest,
    View,
    plan_of_waypoints,
    waypoints_of,
)
from bridgeact_jax.planning.recorded import FilePlanner, line
from bridgeact_jax.planning.remote import RemotePlanner, prices_of
from bridgeact_jax.planning.request_files import read_request
from bridgeact_jax.planning.sketch import draw_plan
from bridgeact_jax.planning.sweep import guidance_of
from bridgeact_jax.sim import kinematics
from bridgeact_jax.sim.environment import SAFE_HIGH, SAFE_LOW, Environment

SIZE = 480  # pixels a side of a simulated picture
OF_PICTURE = ("camera", "instruction", "state")  # flags that --picture needs
STREAM = "evaluation"


def define_flags() -> None:
    """Flags of `bridgeact plan`."""
    flags.DEFINE_string("task", None, "the picture is the first of an episode of this task")
    flags.DEFINE_integer("episode", 0, "which episode of the task", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the episode, as evaluation counts them", lower_bound=0)
    flags.DEFINE_string("picture", None, "a picture's file, instead of --task")
    flags.DEFINE_string("depth", None, "its depth: 16-bit PNG, millimetres, or .npy, metres")
    flags.DEFINE_string("camera", None, "its camera: a JSON file, see above")
    flags.DEFINE_string("instruction", None, "what to do, in words")
    flags.DEFINE_string("state", None, "the tool's state: JSON, or a file of it, see above")
    flags.DEFINE_enum(
        "planner", "oracle", ["oracle", "remote", "file"],
        "oracle: knows the truth (only with --task); remote: a model behind an OpenAI-compatible "
        "endpoint; file: recorded plans",
    )
    flags.DEFINE_enum(
        "wrong_waypoint", "none", WRONG_WAYPOINTS, "how the oracle's plan is wrong"
    )
    flags.DEFINE_string("planner_model", None, "the remote planner's model, by its endpoint's name")
    flags.DEFINE_string("planner_url", None, "the remote planner's endpoint: http://host:port/v1")
    flags.DEFINE_list(
        "planner_prices", None, "its prices for a million tokens of questions and of answers, "
        "e.g. 2.5,10: adds up the cost",
    )
    flags.DEFINE_string("plans", None, "recorded plans of --planner=file")
    flags.DEFINE_string("out", "plan.png", "the drawing; the plan is beside it, as .json")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact plan`."""
    del argv
    args = flags.FLAGS
    out = pathlib.Path(args.out)
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out={out}: must end in .png")
    if (args.task is None) == (args.picture is None):
        raise UsageError("plan: either --task or --picture is needed")
    env = None
    if args.task is not None:
        env = Environment(args.task)
        env.reset(args.seed, args.episode, stream=STREAM)
        request = request_of(env, f"{args.task}/{args.seed}/{args.episode}/0")
    else:
        missing = [f"--{name}" for name in OF_PICTURE if not args[name].value]
        if missing:
            raise UsageError(f"--picture also needs {', '.join(missing)}")
        request = read_request(
            args.picture, args.camera, args.instruction, args.state, args.depth
        )
    planner = _planner(args, env)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out={out}: {out.parent} cannot be made a folder: {error.strerror}"
        ) from None
    plan = planner.plan(request)
    waypoints = waypoints_of(plan, request)
    refusals = None if env is None else judge(env, waypoints)
    print(describe(plan, waypoints, request.instruction, refusals))
    drawing = draw_plan(
        request.views[0], waypoints, guidance_of(waypoints), plan.anchors, request.instruction
    )
    written = _write(out, drawing, plan, waypoints, request, refusals)
    print("written: " + ", ".join(map(str, written)))


def request_of(env: Environment, key: str = "", size: int = SIZE) -> PlanRequest:
    """What a planner is told of an environment now, with a picture of `size` pixels a side.

    Args:
      key: names the request; those of an evaluation are task/seed/episode/step.
    """
    picture, depth, camera = env.view(size)
    start = env.waypoints()
    return PlanRequest(
        (View(picture=picture, camera=camera, depth=depth),), env.instruction,
        start.position[0], start.rotation[0], float(start.gripper[0]), key=key,
    )


class Oracle:
    """Plans for one environment from its true poses."""

    def __init__(self, env: Environment, errors: PlannerErrors, seed: int, episode: int):
        self._env, self._errors = env, errors
        self._key = jax.random.fold_in(jax.random.key(seed), episode)

    def plan(self, request: PlanRequest) -> Plan:
        """The plan for the environment as it is; `request` is one of its."""
        view = request.views[0]
        waypoints = oracle_plan(
            self._key, self._env.waypoints(), self._errors, camera=self._env.cameras[0]
        )
        anchors, _ = anchors_of(waypoints, view)
        return plan_of_waypoints(waypoints, view.camera, anchors=anchors)


def judge(env: Environment, waypoints: Waypoints) -> tuple[Refusal, ...]:
    """What the guard has against a plan in an environment as it is."""
    limits = Limits(SAFE_LOW, SAFE_HIGH, env.arm.max_joint_speed)
    guard = Guard(limits, kinematics.shared(env.arm.name).follow)
    return guard.judge(waypoints, np.asarray(env.cloud(), np.float32))


def describe(
    plan: Plan, waypoints: Waypoints, instruction: str, refusals: Sequence[Refusal] | None
) -> str:
    """The plan in words and numbers; `refusals` are the guard's, None where it was not asked."""
    lines = [f"instruction: {instruction}", "", "anchors (pixel; camera frame, m)"]
    for anchor in plan.anchors:
        lifted = "" if anchor.point is None else _numbers(anchor.point)
        u, v = anchor.pixel
        lines.append(f"  {anchor.label:<8} ({u:4.0f}, {v:4.0f})    {lifted}".rstrip())
    lines += ["", f"{'waypoints':<10}{'camera frame, m':>24}{'base frame, m':>27}   gripper"]
    poses = (*plan.waypoints, plan.target)
    for i, (pose, base) in enumerate(zip(poses, waypoints.position[1:], strict=True), 1):
        name = "target" if i == len(poses) else str(i)
        state = "open" if pose.gripper > 0.5 else "closed"
        lines.append(f"  {name:<8}{_numbers(pose.position)}   {_numbers(base)}   {state}")
    lines.append(f"  target's rotation (w x y z): camera frame {_numbers(plan.target.rotation)}")
    lines.append("")
    if refusals is None:
        lines.append("guard: not asked: it judges plans of simulated arms only")
    elif refusals:
        lines += [f"guard: refused ({refusal.kind}): {refusal.reason}" for refusal in refusals]
    else:
        lines.append("guard: no objection")
    if plan.confidence is not None:
        lines.append(f"confidence: {plan.confidence:.2f}")
    if plan.words:
        lines += ["words:", *("  " + line for line in plan.words.splitlines())]
    if plan.usage:
        lines.append("usage: " + ", ".join(f"{k} {v:.6g}" for k, v in plan.usage.items()))
    return "\n".join(lines)


# ---- inside -------------------------------------------------------------------------------------


def _planner(args: flags.FlagValues, env: Environment | None) -> Planner:
    if args.planner == "remote":
        if not args.planner_model or not args.planner_url:
            raise UsageError("--planner=remote needs --planner_model and --planner_url")
        prices = prices_of(args.planner_prices)
        return RemotePlanner(args.planner_model, args.planner_url, prices=prices)
    if args.planner == "file":
        if not args.plans:
            raise UsageError("--planner=file needs --plans=FILE")
        return FilePlanner(args.plans)
    if env is None:
        raise UsageError("--planner=oracle knows the truth of --task only: choose remote or file")
    errors = PlannerErrors(wrong_waypoint=args.wrong_waypoint)
    return Oracle(env, errors, args.seed, args.episode)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:7.3f}" for value in values)


def _write(
    out: pathlib.Path, drawing: np.ndarray, plan: Plan, waypoints: Waypoints,
    request: PlanRequest, refusals: Sequence[Refusal] | None,
) -> list[pathlib.Path]:
    """Write the drawing, and the plan as a file of plans with one line; returns their paths."""
    encoded = io.BytesIO()
    Image.fromarray(drawing).save(encoded, "PNG")
    record = {
        **json.loads(line(request, plan)),
        "base_frame": {
            name: np.round(getattr(waypoints, name), 6).tolist()
            for name in ("position", "rotation", "gripper")
        },
        "refusals": None if refusals is None else [
            {"kind": refusal.kind, "reason": refusal.reason} for refusal in refusals
        ],
    }
    beside = out.with_suffix(".json")
    write_bytes(out, encoded.getvalue())
    write_text(beside, json.dumps(record) + "\n")
    return [out, beside]
