"""Studies of what is seen: how wrong depth may be, and where cameras may stand."""

from collections.abc import Mapping, Sequence

from bridgeact_jax.evaluation.conditions import Condition, Value
from bridgeact_jax.planning.oracle import EXACT, PlannerErrors
from bridgeact_jax.sim.cameras import DISTANCE
from bridgeact_jax.sim.disturbances import CALM, Disturbance
from bridgeact_jax.studies.plans import COARSE
from bridgeact_jax.studies.records import Row, larger, rate, values, where
from bridgeact_jax.studies.study import (
    Cell,
    Claim,
    Panel,
    Scope,
    Size,
    Study,
    centimetres,
    nearest_value,
)

COARSE_PLAN = PlannerErrors(waypoint_noise=COARSE)


def alone(axis: str, axes: Sequence[str]) -> dict[str, Value]:
    """The rows of a panel along one axis: all others of the study off."""
    return {name: 0 for name in axes if name != axis}


def course(rows: Sequence[Row], axis: str, unit: Mapping[str, float | str]) -> str:
    """How the expert's success goes along an axis, as a sentence.

    Args:
      unit: {"times": what a value is multiplied by, "word": what then follows}.
    """
    found = {x: rate(where(rows, policy="expert", **{axis: x})) for x in values(rows, axis)}
    shown = [f"{x * unit['times']:g}{unit['word']}: {success}" for x, success in found.items()]
    return ", ".join(shown)


# ---- depth --------------------------------------------------------------------------------------

SENSING = ("sensor_noise", "stereo_noise", "monocular_error", "holes", "quantisation", "points")
_CM, _PERCENT, _PLAIN = (
    {"times": times, "word": word} for times, word in ((100, " cm"), (100, " %"), (1, ""))
)
_TITLES = {
    "sensor_noise": ("sensor noise along the ray", "standard deviation, m", _CM),
    "stereo_noise": ("depth as stereo errs, plan alike", "standard deviation at 1 m, m", _CM),
    "monocular_error": ("depth as from one picture, plan alike", "relative error", _PERCENT),
    "holes": ("holes", "share of the points lost", _PERCENT),
    "quantisation": ("quantisation", "step, m", _CM),
    "points": ("sparse clouds", "distinct points", _PLAIN),
}


def _depths(scope: Scope) -> list[Cell]:
    conditions = [
        (PlannerErrors(depth_noise=depth), CALM, ("spline", "expert"))
        for depth in (0.0, 0.01, 0.02, 0.04, 0.07, 0.1)
    ]
    seen = [
        (COARSE_PLAN, Disturbance(**{axis: value}), ("expert",))
        for axis, found in {
            "sensor_noise": (0.0, 0.005, 0.01, 0.02, 0.05, 0.1),
            "holes": (0.4, 0.8),
            "quantisation": (0.005, 0.02, 0.05),
            "points": (1024, 256, 64, 16),
        }.items()
        for value in found
    ]
    # Here the plan is lifted by depth of the same kind: its error is the sensor's at its distance.
    kinds = [
        (
            PlannerErrors(waypoint_noise=COARSE, depth_noise=round(value * DISTANCE**power, 4)),
            Disturbance(**{axis: value}),
            ("spline", "expert"),
        )
        for axis, power, found in (
            ("stereo_noise", 2, (0.005, 0.02, 0.05)),
            ("monocular_error", 1, (0.02, 0.05, 0.1)),
        )
        for value in found
    ]
    seen.insert(1, (COARSE_PLAN, CALM, ("spline",)))  # where the kinds of depth begin
    return [
        Cell(
            Condition(
                policy, scope.checkpoint(policy), seed=seed, errors=errors, disturbance=disturbance
            )
        )
        for seed in scope.seeds
        for errors, disturbance, policies in [*conditions, *seen, *kinds]
        for policy in policies
    ]


def _depth_panel(axis: str) -> Panel:
    title, label, _ = _TITLES[axis]
    only = alone(axis, SENSING) | {"waypoint_noise": COARSE}
    if axis == "points":
        only["points"] = (1024, 256, 64, 16)  # 0 stands for all
    return Panel(title, axis, label, "policy", only)


_PLAN_PANEL = Panel(
    "depth error of the planner alone", "depth_noise", "standard deviation, m", "policy",
    {"waypoint_noise": EXACT.waypoint_noise}, paper={0.1: 0.33},
)  # fmt: skip


def _depth_findings(rows: Sequence[Row]) -> list[str]:
    of_plan = where(rows, **_PLAN_PANEL.only)
    parts = [
        f"{centimetres(depth)}: {rate(where(of_plan, depth_noise=depth, policy='spline'))} and "
        f"{rate(where(of_plan, depth_noise=depth, policy='expert'))}"
        for depth in values(of_plan, "depth_noise")
    ]
    sentences = [
        "Where only the planner's depth is wrong, following the curve and the expert succeed in: "
        f"{', '.join(parts)}."
    ]
    for axis in SENSING:
        panel = _depth_panel(axis)
        title, _, unit = _TITLES[axis]
        course_of = course(where(rows, **panel.only), axis, unit)
        sentences.append(f"The expert with {title}: {course_of}.")
    return sentences


def _depth_claims(rows: Sequence[Row]) -> list[Claim]:
    of_plan = where(rows, **_PLAN_PANEL.only)
    depth = nearest_value(values(of_plan, "depth_noise"), 0.1)
    followed, seen = (
        rate(where(of_plan, depth_noise=depth, policy=policy)) for policy in ("spline", "expert")
    )
    return [
        Claim(
            "with 10 cm of depth error the expert does better than following the plan",
            "33 % and 11 %", f"at {centimetres(depth)}: {seen} and {followed}",
            larger(seen, followed),
        )
    ]  # fmt: skip


DEPTH = Study(
    name="depth",
    question="How wrong may depth be, the planner's and the sensor's?",
    fair="The same episodes throughout. With the planner's depth error its waypoints are otherwise "
    "exact; with the sensors' errors they are 2 cm off per axis, so that there is something to "
    "repair. With stereo's and one picture's errors the plan is off along the ray as well, by what "
    "such depth errs at the camera's distance, drawn apart from the cloud's. The expert has not "
    "been trained for any of it beyond its configuration.",
    paper="with 10 cm of depth noise 33 % for the expert and 11 % for a follower by inverse "
    "kinematics; poor and sparse depth sensors are its open question 1.",
    cells=_depths,
    panels=(_PLAN_PANEL, *map(_depth_panel, SENSING)),
    findings=_depth_findings,
    claims=_depth_claims,
    full=Size("all", 10, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 1, (0,)),
)


# ---- camera -------------------------------------------------------------------------------------

CAMERA_AXES = ("camera_turn", "camera_shift")


def _cameras(scope: Scope) -> list[Cell]:
    places = [
        CALM,
        *(Disturbance(camera_turn=turn) for turn in (-0.6, -0.4, -0.2, 0.2, 0.4, 0.6)),
        *(Disturbance(camera_shift=shift) for shift in (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)),
    ]
    return [
        Cell(
            Condition(
                policy, scope.checkpoint(policy), seed=seed, errors=COARSE_PLAN,
                disturbance=place,
            )
        )
        for seed in scope.seeds
        for place in places
        for policy in (("expert", "expert_blind") if place == CALM else ("expert",))
    ]  # fmt: skip


def _camera_findings(rows: Sequence[Row]) -> list[str]:
    usual = where(rows, camera_turn=0, camera_shift=0)
    seen, blind = (rate(where(usual, policy=policy)) for policy in ("expert", "expert_blind"))
    turned = course(where(rows, camera_shift=0), "camera_turn", {"times": 1, "word": " rad"})
    shifted = course(where(rows, camera_turn=0), "camera_shift", _CM)
    return [
        f"With the cameras where they were in training the expert succeeds in {seen}, without its "
        f"cloud in {blind}.",
        f"Both cameras turned about the table: {turned}.",
        f"Both shifted sideways: {shifted}.",
    ]


CAMERA = Study(
    name="camera",
    question="Does the expert depend on where the cameras stand?",
    fair="The same episodes and plans (2 cm off per axis); only the cameras move. Their pose is "
    "known, as after a calibration: what changes is which sides of things are seen.",
    paper="no figure; the expert sees points in the base frame and should not care.",
    cells=_cameras,
    panels=(
        Panel(
            "cameras turned about the table", "camera_turn", "turn, rad", "policy",
            {"camera_shift": 0},
        ),
        Panel(
            "cameras shifted sideways", "camera_shift", "shift, m", "policy", {"camera_turn": 0}
        ),
    ),
    findings=_camera_findings,
    full=Size("all", 10, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 2, (0,)),
)  # fmt: skip
