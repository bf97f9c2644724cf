"""Studies of ChatVLA-2: its scores, its stages, and how much fine-tuning a planner bears."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.figures import words
from bridgeact_jax.evaluation.statistics import POINTS
from bridgeact_jax.sim.tasks import WORLDS
from bridgeact_jax.studies import stages
from bridgeact_jax.studies.records import Rate, Row, larger, mean, rate, reaches, values, where
from bridgeact_jax.studies.stages import (
    COTRAIN,
    DENSE,
    HEAD,
    HEAD_ALONE,
    TEST,
    TUNING,
    Stage,
    tuned,
)
from bridgeact_jax.studies.study import Cell, Claim, Panel, Scope, Size, Study
from bridgeact_jax.vla.knowledge import added, examine

MATH, TOYS = (tuple(name for name in WORLDS if name.startswith(w)) for w in ("math", "toy"))
MATH_OPEN, TOYS_OPEN = "math_matching_open", "toy_placement_open"
OPEN = f"{MATH_OPEN},{TOYS_OPEN}"
ABOUT = {"ocr": "reading", "math": "reasoning", "object": "object", "affordance": "affordance"}


def _workdir(scope: Scope, run: Stage) -> str:
    return str(Path(scope.chatvla) / run.name)


def _preparing(*runs: Stage) -> Callable[[Scope, int], None]:
    def prepare(scope: Scope, workers: int) -> None:
        stages.prepare(scope.chatvla, runs, quick=scope.quick, workers=workers)

    return prepare


@functools.cache
def _knows(checkpoint: str, test: str) -> tuple[int, int]:
    return added(examine(checkpoint, test))


def _knowledge(scope: Scope, *, before: bool = False) -> Callable[[Condition], dict[str, float]]:
    """What measures how much a cell's model knows, and with `before` the dense model too."""
    test = str(Path(scope.chatvla) / TEST)

    def measure(condition: Condition) -> dict[str, float]:
        right, asked = _knows(condition.planner_checkpoint or condition.checkpoint, test)
        found = {"knowledge": round(right / asked, 4), "known": right, "asked": asked}
        return found | ({"known_before": _knows(_workdir(scope, DENSE), test)[0]} if before else {})

    return measure


def _known(rows: Sequence[Row], column: str = "known") -> Rate:
    """What is known, of one model or the mean of several."""
    if not values(rows, column):
        return Rate(0, 0)
    return Rate(round(mean(rows, column)), round(mean(rows, "asked")))


def _points(rows: Sequence[Row]) -> str:
    found = [f"{ABOUT[name]} {rate(rows, name)}" for name in POINTS if values(rows, name)]
    return ", ".join(found)


def _by_task(rows: Sequence[Row]) -> str:
    return ", ".join(f"{words(t)} {rate(where(rows, task=t))}" for t in values(rows, "task"))


# ---- chatvla2 -----------------------------------------------------------------------------------

ACTS, PLANS = "its own head", "waypoints and expert"


def _ways(scope: Scope) -> list[Cell]:
    head, cells = _workdir(scope, HEAD), []
    for seed in scope.seeds:
        planned = Condition(
            "expert", scope.expert, planner="learned", planner_checkpoint=head, seed=seed
        )
        cells += [
            Cell(
                Condition("chatvla2", head, seed=seed), {"way": ACTS},
                measure=_knowledge(scope, before=True),
            ),
            Cell(planned, {"way": PLANS}),
        ]
    return cells  # fmt: skip


def _ways_findings(rows: Sequence[Row]) -> list[str]:
    sentences = [
        f"Success by {way}: {_by_task(where(rows, way=way))}." for way in values(rows, "way")
    ]
    for task in values(rows, "task"):
        own = where(rows, way=ACTS, task=task)
        texts = rate(own, "unparsable")
        sentences.append(
            f"Thoughts in {words(task)}: {_points(own)}; {texts.count} of {texts.episodes} could "
            "not be parsed."
        )
    sentences.append(
        f"Of the knowledge test the model answers {_known(rows)} exactly after robot training, "
        f"{_known(rows, 'known_before')} before."
    )
    return sentences


def _ways_claims(rows: Sequence[Row]) -> list[Claim]:
    claims = []
    for way in (ACTS, PLANS):
        own = where(rows, way=way)
        found = {task: rate(where(own, task=task)) for task in WORLDS}
        for task, paper in ((MATH_OPEN, "82.7 %"), (TOYS_OPEN, "81.4 %")):
            claims.append(
                Claim(
                    f"{words(task)}, {way}: 80 % or more succeed", paper, str(found[task]),
                    reaches(found[task], 0.8),
                )
            )
        for world in ("math_matching", "toy_placement"):
            plain, other = found[f"{world}_open"], found[f"{world}_reworded"]
            claims.append(
                Claim(
                    f"{words(world)}, {way}: reworded instructions cost a tenth at most",
                    "no figure", f"{other} and {plain}", reaches(other, 0.9 * plain.share),
                )
            )
    thought = where(rows, way=ACTS, task=MATH_OPEN)
    for name, least, paper in (("ocr", 3.5, "3.58 of 4"), ("math", 1.7, "1.73 of 2")):
        found = rate(thought, name)
        claims.append(
            Claim(
                f"{words(MATH_OPEN)}: {ABOUT[name]} {least} or more of {POINTS[name]}", paper,
                str(found), reaches(found, least / POINTS[name]),
            )
        )
    after, before = _known(rows), _known(rows, "known_before")
    claims.append(
        Claim(
            "robot training leaves 95 % or more of the knowledge", "about all",
            f"{after} and {before} before", reaches(after, 0.95 * before.share),
        )
    )
    return claims  # fmt: skip


CHATVLA2 = Study(
    name="chatvla2",
    question="Does a model that reasons answer what its demonstrations never showed?",
    fair="One model, its four stages trained once; both ways to act get the same episodes and "
    "nearly the same words. Open: equations, cards, hands, layouts, or toys and pairs that no "
    "demonstration has; reworded: the same in wordings that none has. A claim about a figure holds "
    "where the share reaches it, and fails where the interval ends below.",
    paper="math matching in domain 11/13, open 43/52 (OCR 3.58 of 4, math 1.73 of 2); toy "
    "placement in domain 61/67, open 127/156, with a model of 2 B parameters on real robots (arXiv "
    "2505.21906).",
    cells=_ways,
    panels=(
        Panel("success, math matching", "task", "world", "way", {"task": MATH},
              paper={"math_matching": 11 / 13, MATH_OPEN: 43 / 52}),
        Panel("success, toy placement", "task", "world", "way", {"task": TOYS},
              paper={"toy_placement": 61 / 67, TOYS_OPEN: 127 / 156}),
        Panel("reading, share of 4 points", "task", "world", "way", {"task": MATH}, "ocr",
              {MATH_OPEN: 3.58 / 4}),
        Panel("reasoning, share of 2 points", "task", "world", "way", {"task": MATH}, "math",
              {MATH_OPEN: 1.73 / 2}),
        Panel("the right toy is meant", "task", "world", "way", {"task": TOYS}, "object"),
        Panel("a right place is meant", "task", "world", "way", {"task": TOYS}, "affordance"),
    ),
    findings=_ways_findings,
    claims=_ways_claims,
    full=Size(",".join(WORLDS), 52, (0,)),
    quick=Size(",".join(WORLDS), 1, (0,)),
    prepare=_preparing(HEAD),
)  # fmt: skip


# ---- chatvla2_stages ----------------------------------------------------------------------------

STAGES = {"both": HEAD, "stage 1 only": COTRAIN, "stage 2 only": HEAD_ALONE}


def _staged(scope: Scope) -> list[Cell]:
    return [
        Cell(Condition("chatvla2", _workdir(scope, run), seed=seed), {"stages": name})
        for seed in scope.seeds
        for name, run in STAGES.items()
    ]


def _staged_findings(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for name in values(rows, "stages"):
        own = where(rows, stages=name)
        sentences.append(f"With {name}: {_by_task(own)}; {_points(own)}.")
    return sentences


def _staged_claims(rows: Sequence[Row]) -> list[Claim]:
    both, first, second = (rate(where(rows, stages=name, task=MATH_OPEN)) for name in STAGES)
    return [
        Claim(
            "both stages against co-training alone", "43 and 12 of 52", f"{both} and {first}",
            larger(both, first),
        ),
        Claim(
            "co-training alone against the head alone", "12 and 3 of 52", f"{first} and {second}",
            larger(first, second),
        ),
    ]  # fmt: skip


CHATVLA2_STAGES = Study(
    name="chatvla2_stages",
    question="Which of ChatVLA-2's stages are needed?",
    fair="The same data, batches and steps in each stage that a variant has; all start from the "
    "same warmed-up experts, and the whole model acts by its own head. A variant leaves a stage "
    "out and spends nothing in its place, as in the paper.",
    paper="math matching, open, of 52: both 43, stage 1 only 12, stage 2 only 3.",
    cells=_staged,
    panels=(
        Panel(
            "success", "stages", "stages", "task",
            paper={"both": 43 / 52, "stage 1 only": 12 / 52, "stage 2 only": 3 / 52},
        ),
        Panel(
            "reading, share of 4 points", "stages", "stages", "task", {"task": MATH}, "ocr",
            {"both": 3.58 / 4, "stage 1 only": 3.2 / 4, "stage 2 only": 0.15 / 4},
        ),
        Panel(
            "reasoning, share of 2 points", "stages", "stages", "task", {"task": MATH}, "math",
            {"both": 1.73 / 2, "stage 1 only": 1.33 / 2, "stage 2 only": 0.04 / 2},
        ),
    ),
    findings=_staged_findings,
    claims=_staged_claims,
    full=Size(OPEN, 52, (0,)),
    quick=Size(OPEN, 1, (0,)),
    prepare=_preparing(HEAD, HEAD_ALONE),
)  # fmt: skip


# ---- planner_sft --------------------------------------------------------------------------------

FOLLOWERS = ("expert", "spline")


def _tuned(scope: Scope) -> list[Cell]:
    levels = (0, TUNING[0]) if scope.quick else (0, *TUNING)
    return [
        Cell(
            Condition(
                policy, scope.checkpoint(policy), planner="learned",
                planner_checkpoint=_workdir(scope, tuned(steps)), seed=seed,
            ),
            {"tuning_steps": steps, "planner": "learned"},
            measure=_knowledge(scope),
        )
        for seed in scope.seeds
        for steps in levels
        for policy in FOLLOWERS
    ]  # fmt: skip


def _tuned_findings(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for steps in values(rows, "tuning_steps"):
        own = where(rows, tuning_steps=steps)
        seen, followed = (rate(where(own, policy=policy)) for policy in FOLLOWERS)
        sentences.append(
            f"After {steps:,} steps {seen} succeed with the action expert and {followed} without, "
            f"and {_known(own)} of the knowledge test is answered exactly "
            f"({_points(where(own, policy='spline'))})."
        )
    return sentences


def _tuned_claims(rows: Sequence[Row]) -> list[Claim]:
    untuned, fewest, *_ = levels = values(rows, "tuning_steps")
    first, last = (_known(where(rows, tuning_steps=n)) for n in (untuned, levels[-1]))
    seen, followed = (
        rate(where(rows, tuning_steps=fewest, policy=policy)) for policy in FOLLOWERS
    )
    return [
        Claim(
            f"a planner that is tuned for long ({levels[-1]:,} steps) loses what it knew",
            "MMLU about 70 to about 30", f"{first} and {last}", larger(first, last),
        ),
        Claim(
            f"with the expert fewer steps do: after {fewest:,} it helps", "far fewer",
            f"{seen} and {followed} without", larger(seen, followed),
        ),
    ]  # fmt: skip


PLANNER_SFT = Study(
    name="planner_sft",
    question="How much fine-tuning does a planner need, and bear?",
    fair="One fine-tuning on robot texts alone, at a constant rate, examined on its way: each "
    "point goes on from the one before with new batches and a new warm-up. Both followers get the "
    "same plans in the same episodes of the open world. 0 steps: the model as image-text left it, "
    "which has never been told to plan.",
    paper="MMLU falls from about 70 to about 30 where a planner is tuned until it does without the "
    "expert; with it far fewer steps are needed (arXiv 2510.03896).",
    cells=_tuned,
    panels=(
        Panel("success", "tuning_steps", "steps of fine-tuning", "policy"),
        Panel(
            "knowledge test, share answered exactly", "tuning_steps", "steps of fine-tuning",
            "planner", value="knowledge",
        ),
        Panel("reading, share of 4 points", "tuning_steps", "steps of fine-tuning", "planner",
              {"task": MATH, "policy": "spline"}, "ocr"),
        Panel("a right place is meant", "tuning_steps", "steps of fine-tuning", "planner",
              {"task": TOYS, "policy": "spline"}, "affordance"),
    ),
    findings=_tuned_findings,
    claims=_tuned_claims,
    full=Size(OPEN, 26, (0,)),
    quick=Size(OPEN, 1, (0,)),
    prepare=lambda scope, workers: stages.prepare(
        scope.chatvla, [tuned(TUNING[0 if scope.quick else -1])], quick=scope.quick,
        workers=workers,
    ),
)  # fmt: skip
