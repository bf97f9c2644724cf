"""Studies that train their own experts: the two stages, the noise of training, how much data."""

import math
from collections.abc import Sequence

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.studies import experts
from bridgeact_jax.studies.experts import Budget, two_stages
from bridgeact_jax.studies.plans import COARSE, HORIZONS
from bridgeact_jax.studies.records import (
    FAILS,
    HOLDS,
    NOT_RUN,
    Row,
    larger,
    mean,
    rate,
    values,
    where,
)
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

SUITE = ",".join(experts.TASKS)
SEEDS = (0, 1, 2)
COARSE_PLAN = PlannerErrors(waypoint_noise=COARSE)


def _budget(scope: Scope) -> Budget:
    return experts.QUICK if scope.quick else experts.FULL


# ---- appf ---------------------------------------------------------------------------------------

AFTER, START, NONE = "clouds after pre-training", "clouds from the start", "no clouds"
TARGET = 1 / 4  # of the from-start run's cloud samples


def _stages(scope: Scope) -> list[Cell]:
    budget, cells = _budget(scope), []
    for seed in scope.seeds:
        for part in (1 / 4, 1) if scope.quick else (1 / 8, 1 / 4, 1 / 2, 1):
            steps = round(part * budget.stage2)
            after = two_stages(seed, budget, steps=steps)
            runs = {
                AFTER: after,
                START: after._replace(init=None),
                NONE: after._replace(changes=(("use_cloud", False),)),
            }
            for method, run in runs.items():
                policy = "expert_blind" if method == NONE else "expert"
                condition = Condition(policy, errors=COARSE_PLAN)
                cells.append(Cell(condition, {"method": method, "tuning_steps": steps}, run))
    return cells


def needed(rows: Sequence[Row]) -> tuple[float, int, int | None]:
    """The from-start runs' best error on held-out demonstrations, mm, and at how many samples.

    And the fewest at which the pre-trained runs are as good, None if they never are. Errors are
    means over the seeds.
    """
    start = _errors(rows, START)
    at = min(start, key=start.get)
    after = _errors(rows, AFTER)
    return start[at], at, min((n for n in after if after[n] <= start[at]), default=None)


def _errors(rows: Sequence[Row], method: str) -> dict[int, float]:
    own = where(rows, method=method)
    found = {n: mean(where(own, tuning_samples=n), "validation_mm")
             for n in values(own, "tuning_samples")}  # fmt: skip
    return {n: error for n, error in found.items() if not math.isnan(error)}


def _stages_findings(rows: Sequence[Row]) -> list[str]:
    error, at, enough = needed(rows)
    reached = "at no number of cloud samples that was tried" if enough is None else (
        f"with {enough:,} cloud samples, {enough / at:.2f} of them"
    )  # fmt: skip
    pretrained = where(rows, method=AFTER)
    stage1 = values(pretrained, "stage1_samples")[0]
    most = max(values(rows, "tuning_samples"))
    seconds = mean(where(pretrained, tuning_samples=most), "stage1_seconds")
    tuning = mean(where(pretrained, tuning_samples=most), "tuning_seconds")
    sentences = [
        f"Trained with clouds from the start the error on held-out demonstrations is {error:.2f} "
        f"mm at best, after {at:,} cloud samples; after pre-training it is reached {reached}.",
        f"Stage 1 costs {stage1:,} windows without clouds, {seconds:.0f} s, where the longest "
        f"tuning takes {tuning:.0f} s.",
    ]
    for n in values(rows, "tuning_samples"):
        own = where(rows, tuning_samples=n)
        found = [f"{method} {rate(where(own, method=method))}" for method in (AFTER, START, NONE)]
        sentences.append(f"Success after {n:,} windows of tuning: {', '.join(found)}.")
    return sentences


def _stages_claims(rows: Sequence[Row]) -> list[Claim]:
    error, at, enough = needed(rows)
    most = max(values(rows, "tuning_samples"))
    after, start, none = (
        rate(where(rows, tuning_samples=most, method=method)) for method in (AFTER, START, NONE)
    )
    return [
        Claim(
            "pre-training makes clouds cheap to learn: the from-start run's best error with a "
            "quarter of its cloud samples", "far faster",
            "not reached" if enough is None else f"{enough / at:.2f} of {at:,} for {error:.2f} mm",
            HOLDS if enough is not None and enough <= TARGET * at else FAILS,
        ),
        Claim(
            "pre-training ends higher", "higher", f"{after} and {start} after {most:,} samples",
            larger(after, start),
        ),
        Claim("clouds matter", "no figure", f"{after} and {none} without", larger(after, none)),
    ]  # fmt: skip


APPF = Study(
    name="appf",
    question="Is it better to pre-train on motion and then add clouds?",
    fair="The same data, batch, learning rate and schedule, which were not tuned for any of the "
    "three. Every point is a run of its own, with its schedule to the end, of equally many tuning "
    "steps; stage 1 comes on top and its cost is stated. A window of tuning has its cloud except "
    "where there are no clouds. The run from the start has no zero gate. Plans are 2 cm off per "
    "axis.",
    paper="pre-training converges far faster and ends higher than clouds from the start.",
    cells=_stages,
    panels=(
        Panel(
            "position error on held-out demonstrations, mm", "tuning_samples",
            "windows of tuning", "method", value="validation_mm",
        ),
        Panel("success", "tuning_samples", "windows of tuning", "method"),
    ),
    findings=_stages_findings,
    claims=_stages_claims,
    full=Size(SUITE, 15, SEEDS),
    quick=Size(SUITE, 1, SEEDS[:1]),
    trains=True,
)  # fmt: skip


# ---- noise --------------------------------------------------------------------------------------

TRAINED_WITH, TESTED_WITH = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5), (0.02, 0.05, 0.1)


def _noises(scope: Scope) -> list[Cell]:
    levels = TRAINED_WITH[::3] + TRAINED_WITH[-1:] if scope.quick else TRAINED_WITH
    cells = []
    for seed in scope.seeds:
        for level in levels:
            changes = (
                ("noise.waypoint", level), ("noise.common", 0.0), ("noise.graded", False)
            )  # fmt: skip
            run = two_stages(seed, _budget(scope), changes=changes)
            cells += [
                Cell(
                    Condition("expert", errors=PlannerErrors(waypoint_noise=noise)),
                    {"training_noise": level}, run,
                )
                for noise in TESTED_WITH
            ]  # fmt: skip
    return cells


def _noise_findings(rows: Sequence[Row]) -> list[str]:
    sentences, levels = [], values(rows, "training_noise")
    for noise in values(rows, "waypoint_noise"):
        own = where(rows, waypoint_noise=noise)
        found = {level: rate(where(own, training_noise=level)) for level in levels}
        best = max(levels, key=lambda level: found[level].share)
        inside = "inside" if levels[0] < best < levels[-1] else "at an end of"
        shown = ", ".join(f"{centimetres(level)} {found[level]}" for level in levels)
        sentences.append(
            f"Tested with waypoints {centimetres(noise)} off, by the noise of training: {shown}; "
            f"the best, {centimetres(best)}, lies {inside} the range."
        )
    return sentences


def _noise_claims(rows: Sequence[Row]) -> list[Claim]:
    long, levels = where(rows, horizon="long"), values(rows, "training_noise")
    none, some, most = (
        rate(where(long, training_noise=nearest_value(levels, level))) for level in (0.0, 0.1, 0.5)
    )
    if not long:
        return [Claim("noise in training helps long tasks", "60 % and 43 %", "–", NOT_RUN)]
    return [
        Claim(
            "noise in training helps long tasks: 10 cm against none", "60 % and 43 %",
            f"{some} and {none}", larger(some, none),
        ),
        Claim(
            "too much of it ruins them: 10 cm against 50 cm", "60 % and collapse",
            f"{some} and {most}", larger(some, most),
        ),
    ]  # fmt: skip


NOISE = Study(
    name="noise",
    question="How much noise on waypoints should training have?",
    fair="Nothing but the noise differs, in both stages: independent for each waypoint and axis, "
    "the same for every plan, no common offset. Every expert is tested on the same episodes and "
    "plans.",
    paper="on long-horizon tasks 43 % without noise, 60 % at 0.10, collapse at 0.50; that its "
    "noise scale is in metres, and what it was tested with, is not stated.",
    cells=_noises,
    panels=tuple(
        Panel(
            f"tested with {centimetres(noise)} per axis", "training_noise",
            "noise of training, m", "horizon", {"waypoint_noise": noise},
            paper={0.0: 0.43, 0.1: 0.6},
        )
        for noise in TESTED_WITH
    ),
    findings=_noise_findings,
    claims=_noise_claims,
    full=Size(SUITE, 8, SEEDS),
    quick=Size(SUITE, 1, SEEDS[:1]),
    trains=True,
)  # fmt: skip


# ---- data_scale ---------------------------------------------------------------------------------


def _scales(scope: Scope) -> list[Cell]:
    shares = (1 / 16, 1) if scope.quick else (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
    return [
        Cell(
            Condition("expert", errors=COARSE_PLAN), {"share": share},
            two_stages(seed, _budget(scope), share=share),
        )
        for seed in scope.seeds
        for share in shares
    ]  # fmt: skip


def _scale_findings(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for number in values(rows, "demonstrations"):
        own = where(rows, demonstrations=number)
        parts = [f"{horizon} {rate(where(own, horizon=horizon))}" for horizon in HORIZONS]
        sentences.append(f"{number} demonstrations: {rate(own)} ({', '.join(parts)}).")
    return sentences


def _scale_claims(rows: Sequence[Row]) -> list[Claim]:
    numbers = values(rows, "demonstrations")
    few, many = (rate(where(rows, demonstrations=n)) for n in (numbers[0], numbers[-1]))
    return [
        Claim(
            f"more demonstrations help: {numbers[-1]} against {numbers[0]}", "no figure",
            f"{many} and {few}", larger(many, few),
        )
    ]  # fmt: skip


DATA_SCALE = Study(
    name="data_scale",
    question="How many demonstrations does the expert need?",
    fair="Equally many steps in both stages whatever the number of demonstrations, which are the "
    "first ones of the whole; the same episodes, plans 2 cm off per axis.",
    paper="150,000 trajectories in stage 1; no curve over their number.",
    cells=_scales,
    panels=(Panel("success", "demonstrations", "demonstrations of four tasks", "horizon"),),
    findings=_scale_findings,
    claims=_scale_claims,
    full=Size(SUITE, 25, SEEDS),
    quick=Size(SUITE, 1, SEEDS[:1]),
    trains=True,
)
