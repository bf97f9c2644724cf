"""Studies of the plan's errors and of how the expert samples its answer to them."""

from collections.abc import Sequence

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.studies.latency import latency
from bridgeact_jax.studies.records import Row, larger, mean, rate, values, where
from bridgeact_jax.studies.study import (
    POLICIES,
    Cell,
    Claim,
    Panel,
    Scope,
    Size,
    Study,
    centimetres,
    nearest_value,
)

COARSE = 0.02  # metres per axis: the error of plans where a study asks about something else
HORIZONS = ("short", "middle", "long")


# ---- planner_noise ------------------------------------------------------------------------------


def _noisy_plans(scope: Scope) -> list[Cell]:
    return [
        Cell(
            Condition(
                policy, scope.checkpoint(policy), seed=seed,
                errors=PlannerErrors(waypoint_noise=noise),
            )
        )
        for seed in scope.seeds
        for noise in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08)
        for policy in POLICIES
    ]  # fmt: skip


def _noisy_findings(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for noise in values(rows, "waypoint_noise"):
        own = where(rows, waypoint_noise=noise)
        followed, blind, seen = (rate(where(own, policy=policy)) for policy in POLICIES)
        sentences.append(
            f"With waypoints {centimetres(noise)} off per axis the curve alone succeeds in "
            f"{followed}, the expert without its cloud in {blind}, the expert in {seen}."
        )
    return sentences


def _noisy_claims(rows: Sequence[Row]) -> list[Claim]:
    noise = nearest_value(values(rows, "waypoint_noise"), 0.03)
    followed, blind, seen = (
        rate(where(rows, waypoint_noise=noise, policy=policy)) for policy in POLICIES
    )
    at = f"at {centimetres(noise)}"
    return [
        Claim(
            "the expert repairs coarse waypoints that following the curve does not", "no figure",
            f"{at}: {seen} and {followed}", larger(seen, followed),
        ),
        Claim(
            "it is the cloud that repairs them", "no figure",
            f"{at}: {seen} with and {blind} without", larger(seen, blind),
        ),
    ]  # fmt: skip


PLANNER_NOISE = Study(
    name="planner_noise",
    question="How wrong may waypoints be?",
    fair="All three policies get the same plans in the same episodes. The blind policy is the "
    "checkpoint of --blind, or else the expert itself, its cloud withheld as in a part of its "
    "training.",
    paper="no figure for success against the waypoints' error alone; long-horizon average 60 %.",
    cells=_noisy_plans,
    panels=tuple(
        Panel(title, "waypoint_noise", "error per axis, m", "policy", only)
        for title, only in [("all tasks", {}), *((h, {"horizon": h}) for h in HORIZONS)]
    ),
    findings=_noisy_findings,
    claims=_noisy_claims,
    full=Size("all", 20, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 2, (0,)),
)


# ---- sampler ------------------------------------------------------------------------------------


def _samplers(scope: Scope) -> list[Cell]:
    return [
        Cell(
            Condition(
                "expert", scope.expert, seed=seed, sample_steps=steps, temperature=temperature,
                errors=PlannerErrors(waypoint_noise=COARSE),
            ),
            measure=latency if temperature == 1.0 else None,
        )
        for seed in scope.seeds
        for temperature in (0.0, 0.5, 1.0)
        for steps in (1, 2, 3, 5, 10, 20)
    ]  # fmt: skip


def _sampler_findings(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for temperature in values(rows, "temperature"):
        own = where(rows, temperature=temperature)
        steps = values(own, "sample_steps")
        shares = {n: rate(where(own, sample_steps=n)) for n in steps}
        best, fewest = max(steps, key=lambda n: shares[n].share), steps[0]
        sentences.append(
            f"From noise scaled by {temperature:g} the best is {shares[best]} with {best} steps; "
            f"{fewest} gives {shares[fewest]}."
        )
    steps = values(rows, "sample_steps")
    slow, fast = (mean(where(rows, sample_steps=n), "latency_ms") for n in (steps[-1], steps[0]))
    sentences.append(
        f"A chunk takes {fast:.1f} ms with {steps[0]} steps and {slow:.1f} ms with {steps[-1]} "
        "(median, one arm, one process, measured after the episodes)."
    )
    return sentences


SAMPLER = Study(
    name="sampler",
    question="How many denoising steps, and from how much noise?",
    fair="One expert, the same episodes and plans (2 cm off per axis); only the sampler differs. "
    "Times mean something only on a machine that does nothing else.",
    paper="not stated. DDIM with 10 steps is what 3D Diffusion Policy uses.",
    cells=_samplers,
    panels=(
        Panel("success", "sample_steps", "denoising steps", "temperature"),
        Panel(
            "milliseconds a chunk, median", "sample_steps", "denoising steps", "policy",
            value="latency_ms",
        ),
    ),
    findings=_sampler_findings,
    full=Size("all", 8, (0,)),
    quick=Size("lift,pick_and_place,put_in_drawer", 1, (0,)),
)  # fmt: skip
