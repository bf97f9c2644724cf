"""Studies of what the world does: a target that moves, an obstacle, another arm, clutter."""

from collections.abc import Sequence

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.planning.oracle import EXACT, PlannerErrors
from bridgeact_jax.sim.arms import ARMS
from bridgeact_jax.sim.disturbances import Disturbance
from bridgeact_jax.studies.plans import COARSE
from bridgeact_jax.studies.records import Row, Value, larger, rate, values, where
from bridgeact_jax.studies.study import Cell, Claim, Panel, Scope, Size, Study

COARSE_PLAN = PlannerErrors(waypoint_noise=COARSE)
METHODS = {  # who acts, and whether the way is watched and planned anew
    "spline": ("spline", False),
    "expert": ("expert", False),
    "spline, replanning": ("spline", True),
    "expert, replanning": ("expert", True),
}


def _methods(scope: Scope, axis: str, found: Sequence[float]) -> list[Cell]:
    """Every method under every value of an axis of the world, with exact plans at the start."""
    return [
        Cell(
            Condition(
                policy, scope.checkpoint(policy), seed=seed, replan=replan,
                disturbance=Disturbance(**{axis: value}),
            ),
            labels={"method": method},
        )
        for seed in scope.seeds
        for value in found
        for method, (policy, replan) in METHODS.items()
    ]  # fmt: skip


def _by_series(rows: Sequence[Row], series: str, **settings: Value) -> str:
    """Each value of a column with its success, in words."""
    own = where(rows, **settings)
    return ", ".join(
        f"{value} {rate(where(own, **{series: value}))}" for value in values(own, series)
    )


# ---- moving_target ------------------------------------------------------------------------------


def _moving_findings(rows: Sequence[Row]) -> list[str]:
    return [
        f"At {100 * speed:g} cm/s: {_by_series(rows, 'method', target_speed=speed)}."
        for speed in values(rows, "target_speed")
    ]


def _moving_claims(rows: Sequence[Row]) -> list[Claim]:
    fastest = values(rows, "target_speed")[-1]
    followed, seen, again = (
        rate(where(rows, target_speed=fastest, method=method))
        for method in ("spline", "expert", "expert, replanning")
    )
    at = f"at {100 * fastest:g} cm/s"
    return [
        Claim(
            "moving targets are beyond a plan made once (open question 2): planning anew helps "
            "the expert", "open", f"{at}: {again} and {seen}", larger(again, seen),
        ),
        Claim(
            "the cloud helps to catch a target that has moved", "open",
            f"{at}: {seen} and {followed}", larger(seen, followed),
        ),
    ]  # fmt: skip


MOVING_TARGET = Study(
    name="moving_target",
    question="What if the target moves?",
    fair="The same episodes; plans are exact when they are made, and the target drifts until the "
    "robot touches it. Replanning asks the same planner again from where the arm had to stop.",
    paper="no figure; moving targets are its open question 2.",
    cells=lambda scope: _methods(scope, "target_speed", (0.0, 0.005, 0.01, 0.02, 0.03)),
    panels=(Panel("all tasks", "target_speed", "speed, m/s", "method"),),
    findings=_moving_findings,
    claims=_moving_claims,
    full=Size("all", 8, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 1, (0,)),
)


# ---- obstacle -----------------------------------------------------------------------------------


def _obstacle_findings(rows: Sequence[Row]) -> list[str]:
    return [
        f"{'With a post that rises on the path' if there else 'Without'}: "
        f"{_by_series(rows, 'method', obstacle=there)}."
        for there in values(rows, "obstacle")
    ]


def _obstacle_claims(rows: Sequence[Row]) -> list[Claim]:
    seen, again = (
        rate(where(rows, obstacle=1, method=method))
        for method in ("expert", "expert, replanning")
    )
    return [
        Claim(
            "an obstacle in the path is beyond the expert alone (open question 2): watching and "
            "planning anew helps", "open", f"{again} and {seen}", larger(again, seen),
        )
    ]  # fmt: skip


OBSTACLE = Study(
    name="obstacle",
    question="What if an object enters the path?",
    fair="The same episodes and exact plans; a post rises on the path while the arm is on its way, "
    "and striking it ends the episode as a failure.",
    paper="no figure; obstacles are its open question 2.",
    cells=lambda scope: _methods(scope, "obstacle", (0, 1)),
    panels=(Panel("all tasks", "obstacle", "obstacles", "method"),),
    findings=_obstacle_findings,
    claims=_obstacle_claims,
    full=Size("all", 20, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 2, (0,)),
)


# ---- embodiment ---------------------------------------------------------------------------------


def _arms(scope: Scope) -> list[Cell]:
    return [
        Cell(Condition(policy, scope.checkpoint(policy), seed=seed, errors=errors, arm=arm))
        for seed in scope.seeds
        for errors in (EXACT, COARSE_PLAN)
        for arm in ARMS
        for policy in ("spline", "expert")
    ]


def _arm_findings(rows: Sequence[Row]) -> list[str]:
    return [
        f"{'Exact plans' if noise == 0 else 'Plans 2 cm off per axis'}, {arm}: "
        f"{_by_series(rows, 'policy', waypoint_noise=noise, arm=arm)}."
        for noise in values(rows, "waypoint_noise")
        for arm in values(rows, "arm")
    ]


def _arm_claims(rows: Sequence[Row]) -> list[Claim]:
    claims = []
    for arm in values(rows, "arm"):
        own = where(rows, arm=arm, waypoint_noise=COARSE)
        followed, seen = (rate(where(own, policy=policy)) for policy in ("spline", "expert"))
        claims.append(
            Claim(
                f"one expert for every arm: on the {arm} it repairs coarse plans", "no figure",
                f"{seen} and {followed} for the curve alone", larger(seen, followed),
            )
        )  # fmt: skip
    return claims


EMBODIMENT = Study(
    name="embodiment",
    question="Does the expert serve an arm it has never seen?",
    fair="The same layouts and plans on both arms; the expert has learned on the Panda alone. The "
    "curve alone shows what the arms themselves can do.",
    paper="one expert for several robots; no figure for an arm that is not in its data.",
    cells=_arms,
    panels=tuple(
        Panel(title, "arm", "arm", "policy", {"waypoint_noise": noise})
        for title, noise in (("exact plans", 0), ("plans 2 cm off per axis", COARSE))
    ),
    findings=_arm_findings,
    claims=_arm_claims,
    full=Size("all", 20, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 2, (0,)),
)


# ---- clutter ------------------------------------------------------------------------------------


def _clutter(scope: Scope) -> list[Cell]:
    return [
        Cell(
            Condition(
                policy, scope.checkpoint(policy), seed=seed, errors=COARSE_PLAN,
                disturbance=Disturbance(distractors=count),
            )
        )
        for seed in scope.seeds
        for count in (0, 1, 2, 3, 4)
        for policy in ("spline", "expert")
    ]  # fmt: skip


def _clutter_findings(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for count in values(rows, "distractors"):
        own = where(rows, distractors=count)
        wrong = rate(where(own, policy="expert"), "wrong_object")
        sentences.append(
            f"With {count} more objects: {_by_series(own, 'policy')}; the expert takes a wrong "
            f"object in {wrong}."
        )
    return sentences


CLUTTER = Study(
    name="clutter",
    question="Do other objects mislead the expert?",
    fair="The same layouts and plans (2 cm off per axis); the additional objects leave room for "
    "the exact path. A twin of the target stands in most tasks anyway.",
    paper="no figure.",
    cells=_clutter,
    panels=(
        Panel("success", "distractors", "additional objects", "policy"),
        Panel(
            "a wrong object taken", "distractors", "additional objects", "policy",
            value="wrong_object",
        ),
    ),
    findings=_clutter_findings,
    full=Size("all", 10, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 2, (0,)),
)  # fmt: skip
