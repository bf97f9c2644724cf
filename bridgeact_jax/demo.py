"""The whole story: demonstrations, RLDS, store, pre-training, fine-tuning, evaluation, report.

Each part is what its own command does. Data and trainings that `--out` holds already are kept.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.evaluate import evaluate
from bridgeact_jax.evaluation.report import format_table
from bridgeact_jax.pipeline import Diary, Sitting, build_expert, claim
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.training.config import shipped_config

NOISE = 0.03  # metres per axis and waypoint
DEMONSTRATED = "reach,lift,pick_and_place"
TASKS = ("lift", "pick_and_place")
FULL = {"demonstrations": 480, "episodes": 40, "videos": 1}
QUICK = {"demonstrations": 12, "episodes": 2, "videos": 1}
QUICK_STEPS = 30


def define_flags() -> None:
    """Flags of `bridgeact demo`."""
    flags.DEFINE_string("out", "runs/demo", "directory for everything the demo makes")
    flags.DEFINE_bool("quick", False, "every part in a few minutes; the figures mean nothing")
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1)


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact demo`."""
    del argv
    args = flags.FLAGS
    run_demo(Path(args.out), quick=args.quick, workers=args.workers)


def conditions(blind: Path, expert: Path) -> dict[str, Condition]:
    """What the demo compares, by label: a fair baseline, the expert, and two ablations of it."""
    seen = {"policy": "expert", "checkpoint": str(expert)}
    noise = {"errors": PlannerErrors(waypoint_noise=NOISE)}
    return {
        "spline, exact plan": Condition("spline"),
        "expert, exact plan": Condition(**seen),
        "spline, 3 cm": Condition("spline", **noise),
        "expert blind, 3 cm": Condition("expert_blind", checkpoint=str(blind), **noise),
        "expert, 3 cm": Condition(**seen, **noise),
        "expert, 3 cm, another episode's plan": Condition(
            **seen, **noise, ablation="shuffled_guidance"
        ),
        "expert, 3 cm, no points": Condition(**seen, **noise, ablation="empty_cloud"),
    }


def run_demo(out: Path, *, quick: bool, workers: int) -> list[dict]:
    """Run every part that `out` does not hold yet, and evaluate; returns the results.

    Raises UsageError if `out` holds anything else.
    """
    size = QUICK if quick else FULL
    claim(out, {"demo": {**size, "tasks": DEMONSTRATED}})
    configs = {stage: shipped_config("demo", stage) for stage in ("pretrain", "finetune")}
    if quick:
        for config in configs.values():
            config.steps, config.batch_size, config.log_every = QUICK_STEPS, 32, 10
            config.optimizer.warmup_steps = 10
    diary = Diary()
    blind, expert = build_expert(
        out, diary, sittings=[Sitting(DEMONSTRATED, size["demonstrations"], seed=0)],
        configs=configs, workers=workers,
    )  # fmt: skip
    diary.say(f"evaluation, {size['episodes']} episodes a task and condition: {out / 'evaluation'}")
    compared = conditions(blind, expert)
    filmed = ("spline, 3 cm", "expert, 3 cm")
    results = evaluate(
        compared,
        TASKS,
        episodes=size["episodes"],
        workers=workers,
        out=out / "evaluation",
        suite="demo",
        videos=dict.fromkeys(filmed, size["videos"]),
        attributed=False,
        title="Waypoints that are centimetres wrong, repaired by what the expert sees",
        notes=[
            "Every waypoint but the first is off by a Gaussian of 3 cm per axis, unless the plan "
            "is called exact. The spline policy follows the curve through the waypoints; the blind "
            "expert has learned from motion alone; the expert also sees the local point cloud.",
            *(["A quick run: every part ran, the figures mean nothing."] if quick else []),
        ],
        commands=[shlex.join(["bridgeact", *sys.argv[1:]])],
    )
    diary.say("done")
    print(format_table(results))
    print(f"report: {out / 'evaluation' / 'report.html'}")
    return results
