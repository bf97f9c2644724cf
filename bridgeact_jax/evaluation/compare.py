"""Two evaluations against each other, episode by episode, with a paired test.

Both must hold the same episodes (task, seed and number) and the same conditions, or one condition
each. A difference is B's success rate less A's. p is from the exact McNemar test: were both equally
good, the episodes that only one of them solves would be halves. The interval is Bonett and Price's
(2012) for paired proportions, 95 %.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from absl import flags
from scipy.stats import binomtest

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation.statistics import HORIZONS, Z_95, succeeded
from bridgeact_jax.evaluation.text import aligned
from bridgeact_jax.files import write_text

SETTINGS_APART = ("label", "suite", "tasks", "summary")
SHOWN = 3  # differences in a message, at most


class Evaluation(NamedTuple):
    """results: {label: result}. episodes: {label: {(task, seed, episode): record}}."""

    folder: str
    results: dict[str, dict]
    episodes: dict[str, dict[tuple, dict]]


def define_flags() -> None:
    """Flags of `bridgeact compare`."""
    flags.DEFINE_string("out", None, "file for the comparison as JSON")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact compare`."""
    if len(argv) != 3:
        raise UsageError("compare: name two folders of evaluations: bridgeact compare A B")
    comparison = compare(argv[1], argv[2])
    print(format_comparison(comparison))
    if flags.FLAGS.out:
        write_text(flags.FLAGS.out, json.dumps(comparison, indent=1))


def compare(a: str, b: str) -> dict:
    """The comparison of two folders, as JSON.

    Returns {"a", "b", "conditions": [{"a", "b" (labels), "differs" {setting: [a, b]}, "rows"}]};
    a row is `paired` with its "name" (a task, a horizon or "all") and its "kind" (task, horizon or
    overall).

    Raises UserError for a folder without results, UsageError for episodes or conditions that
    cannot be paired.
    """
    first, second = _read(a), _read(b)
    conditions = []
    for label_a, label_b in _pairs(first, second):
        of_a, of_b = first.episodes[label_a], second.episodes[label_b]
        _check_same_episodes(a, of_a, b, of_b)
        result = first.results[label_a]
        conditions.append(
            {
                "a": label_a,
                "b": label_b,
                "differs": _differing(result, second.results[label_b]),
                "rows": _rows(result, of_a, of_b),
            }
        )
    return {"a": a, "b": b, "conditions": conditions}


def paired(outcomes: Iterable[tuple[bool, bool]]) -> dict:
    """Counts, difference, interval and p of (success of A, success of B) pairs, at least one."""
    outcomes = list(outcomes)
    total = len(outcomes)
    only_a = sum(a and not b for a, b in outcomes)
    only_b = sum(b and not a for a, b in outcomes)
    discordant = only_a + only_b
    # Bonett and Price: Wald's interval with one more discordant pair of each kind.
    share_a, share_b = (only_a + 1) / (total + 2), (only_b + 1) / (total + 2)
    shift = share_b - share_a
    half = Z_95 * math.sqrt((share_a + share_b - shift**2) / (total + 2))
    return {
        "episodes": total,
        "successes_a": sum(a for a, _ in outcomes),
        "successes_b": sum(b for _, b in outcomes),
        "only_a": only_a,
        "only_b": only_b,
        "difference": (only_b - only_a) / total,
        "ci95": [max(-1.0, shift - half), min(1.0, shift + half)],
        "p": float(binomtest(only_b, discordant).pvalue) if discordant else 1.0,
    }


def format_comparison(comparison: Mapping) -> str:
    """The comparison as aligned text."""
    lines = [f"A: {comparison['a']}", f"B: {comparison['b']}"]
    for condition in comparison["conditions"]:
        labels = dict.fromkeys((condition["a"], condition["b"]))
        apart = [f"{name} {old} -> {new}" for name, (old, new) in condition["differs"].items()]
        lines += ["", f"{' -> '.join(labels)}   {'; '.join(apart)}".rstrip()]
        rows = [("", "A", "B", "only A", "only B", "B - A", "95 % interval", "p")]
        for row in condition["rows"]:
            low, high = row["ci95"]
            rows.append(
                (
                    row["name"],
                    f"{row['successes_a']}/{row['episodes']}",
                    f"{row['successes_b']}/{row['episodes']}",
                    str(row["only_a"]),
                    str(row["only_b"]),
                    f"{100 * row['difference']:+.0f} %",
                    f"{100 * low:+.0f} to {100 * high:+.0f} %",
                    f"{row['p']:.4f}" if row["p"] >= 0.0001 else "<0.0001",
                )
            )
        lines.append(aligned(rows, left=(0,)))
    return "\n".join(lines)


def _read(folder: str) -> Evaluation:
    path = Path(folder)
    try:
        found = json.loads((path / "results.json").read_text())
        lines = (path / "episodes.jsonl").read_text().splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not JSON"
        raise UserError(
            f"compare: {folder}: no finished evaluation here (results.json or episodes.jsonl: "
            f"{reason})"
        ) from None
    found = found if isinstance(found, list) else [found]
    results = {result["label"]: result for result in found}
    episodes: dict[str, dict] = {label: {} for label in results}
    for record in map(json.loads, lines):
        key = record["task"], record["seed"], record["episode"]
        episodes[record["label"]][key] = record
    return Evaluation(folder, results, episodes)


def _pairs(first: Evaluation, second: Evaluation) -> list[tuple[str, str]]:
    """The conditions' labels, paired: by label, or one with one."""
    if len(first.results) == len(second.results) == 1:
        return [(*first.results, *second.results)]
    for one, other in ((first, second), (second, first)):
        alone = [label for label in one.results if label not in other.results]
        if alone:
            raise UsageError(
                f"compare: conditions cannot be paired: {one.folder} holds {_some(alone)}, "
                f"{other.folder} does not"
            )
    return [(label, label) for label in first.results]


def _check_same_episodes(a: str, of_a: Mapping, b: str, of_b: Mapping) -> None:
    for folder, own, other_folder, other in ((a, of_a, b, of_b), (b, of_b, a, of_a)):
        for part, what in ((0, "task"), (1, "seed")):
            found = sorted({key[part] for key in own} - {key[part] for key in other})
            if found:
                raise UsageError(
                    f"compare: episodes cannot be paired: {folder} holds {what} {_some(found)}, "
                    f"{other_folder} does not"
                )
        alone = [f"{task} {episode}" for task, _, episode in own.keys() - other.keys()]
        if alone:
            raise UsageError(
                f"compare: episodes cannot be paired: {folder} holds {_some(sorted(alone))}, "
                f"{other_folder} does not ({len(own)} and {len(other)} episodes)"
            )


def _some(words: list) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(map(str, words[:SHOWN])) + more


def _differing(a: Mapping, b: Mapping) -> dict[str, list]:
    names = [name for name in {**a, **b} if name not in SETTINGS_APART]
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}


def _rows(result: Mapping, of_a: Mapping, of_b: Mapping) -> list[dict]:
    outcomes: dict[str, list] = {task: [] for task in result["tasks"]}
    for key in of_a:
        outcomes[key[0]].append((succeeded(of_a[key]), succeeded(of_b[key])))
    rows = [
        {"name": task, "kind": "task", **paired(found)} for task, found in outcomes.items()
    ]
    for horizon in HORIZONS:
        tasks = [name for name, task in result["tasks"].items() if task["horizon"] == horizon]
        pooled = [pair for task in tasks for pair in outcomes[task]]
        if pooled:
            rows.append({"name": horizon, "kind": "horizon", **paired(pooled)})
    pooled = [pair for found in outcomes.values() for pair in found]
    return [*rows, {"name": "all", "kind": "overall", **paired(pooled)}]
