"""From episodes to success rates with intervals: the content of `results.json`."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

HORIZONS = ("short", "middle", "long")
POINTS = {"ocr": 4, "math": 2, "object": 1, "affordance": 1}  # of an episode, at most
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal


def wilson(successes: float, episodes: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate; (0, 1) without episodes.

    Successes may be parts: of a mean in [0, 1] the interval is at least as wide as need be, since
    nothing scatters more than what is either 0 or 1.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes of {episodes} episodes")
    if episodes == 0:
        return 0.0, 1.0
    scale = episodes + Z_95**2
    middle = (successes + Z_95**2 / 2) / scale
    half = (
        Z_95 / scale * math.sqrt(successes * (episodes - successes) / episodes + Z_95**2 / 4)
    )
    # The ends 0 and 1 are exact; the formula reaches them only up to rounding.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == episodes else middle + half
    return low, high


def succeeded(episode: Mapping) -> bool:
    """Whether an episode counts as a success: an invalid one never does."""
    return bool(episode["success"] and episode["valid"])


def summarise(
    episodes: Iterable[Mapping], *, horizons: Mapping[str, str], settings: Mapping
) -> dict:
    """The content of `results.json`.

    Args:
      episodes: records with `task`, `success`, `failure_kind` (None where it succeeded),
        `wrong_object`, `valid`, `subgoals` ({name: reached}), if failures have been attributed
        `cause`, where plans are judged or made anew `planning` (as `Consultation.record`), and
        where a model thought `points` and `unparsable` (as `thinking.record_of`); the order does
        not matter.
      horizons: {task: short, middle or long}; tasks are reported in this order, those without
        episodes left out.
      settings: what was evaluated; comes first.

    Returns:
      The settings, `tasks` (per task counts, rates, `ci95`, `subgoals` reached by name,
      `subgoal_share` (mean over episodes of the share reached), `failures` by kind,
      `wrong_object`, `wrong_object_rate`, `invalid`, `causes` of failures if any has one, and
      `planning` summed, and where a model thought the mean `points` by name with `out_of` and
      `ci95`, and its `unparsable` texts) and
      `summary` (success rate over all episodes of a horizon, None without episodes).
    """
    by_task: dict[str, list[Mapping]] = {task: [] for task in horizons}
    for episode in episodes:
        by_task[episode["task"]].append(episode)
    tasks = {
        task: _summarise_task(horizons[task], found) for task, found in by_task.items() if found
    }
    summary = {}
    for horizon in HORIZONS:
        parts = [task for task in tasks.values() if task["horizon"] == horizon]
        total = sum(task["episodes"] for task in parts)
        summary[horizon] = sum(task["successes"] for task in parts) / total if total else None
    return {**settings, "tasks": tasks, "summary": summary}


def _summarise_task(horizon: str, episodes: list[Mapping]) -> dict:
    total = len(episodes)
    successes = sum(map(succeeded, episodes))
    wrong = sum(bool(episode["wrong_object"]) for episode in episodes)
    failures = Counter(
        episode["failure_kind"] or "unknown" for episode in episodes if not succeeded(episode)
    )
    causes = Counter(episode["cause"] for episode in episodes if episode.get("cause"))
    names = list(episodes[0]["subgoals"])
    reached = {name: sum(episode["subgoals"][name] for episode in episodes) for name in names}
    result = {
        "horizon": horizon,
        "episodes": total,
        "successes": successes,
        "success_rate": successes / total,
        "ci95": list(wilson(successes, total)),
        "subgoals": reached,
        "subgoal_share": sum(reached.values()) / (total * len(names)) if names else None,
        "failures": dict(sorted(failures.items())),
        "wrong_object": wrong,
        "wrong_object_rate": wrong / total,
        "invalid": sum(not episode["valid"] for episode in episodes),
    }
    if causes:
        result["causes"] = dict(sorted(causes.items()))
    told = [episode["planning"] for episode in episodes if "planning" in episode]
    if told:
        result["planning"] = {
            "answers": sum(one["answers"] for one in told),
            **{name: _added(one[name] for one in told) for name in ("refused", "alarms")},
        }
    if "points" in episodes[0]:
        result["points"] = _points([episode["points"] for episode in episodes])
        result["unparsable"] = sum(episode["unparsable"] for episode in episodes)
    return result


def _points(found: list[Mapping[str, int]]) -> dict[str, dict]:
    means = {}
    for name, most in POINTS.items():
        if name in found[0]:
            total = sum(points[name] for points in found)
            low, high = (most * end for end in wilson(total / most, len(found)))
            mean = total / len(found)
            means[name] = {"mean": mean, "out_of": most, "ci95": [low, high], "total": total}
    return means


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))
