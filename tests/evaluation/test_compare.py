"""Paired comparison: counts by hand, p in closed form, coverage of the interval, refusals."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from bridgeact_jax import cli
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation.compare import compare, format_comparison, paired
from bridgeact_jax.evaluation.statistics import summarise

HORIZONS = {"lift": "short", "pick_and_place": "middle"}


def write(folder, successes, *, label="expert", seed=0, noise=0.0, count=None):
    """An evaluation's files; `successes` {task: bools}."""
    records = [
        {"label": label, "task": task, "seed": seed, "episode": i, "success": success,
         "valid": True, "failure_kind": None if success else "timeout", "wrong_object": False,
         "subgoals": {}}
        for task, found in successes.items() for i, success in enumerate(found[:count])
    ]
    settings = {"policy": label, "seed": seed, "waypoint_noise": noise}
    found = {"label": label, **summarise(records, horizons=HORIZONS, settings=settings)}
    folder.mkdir(exist_ok=True)
    old = json.loads((folder / "results.json").read_text()) if list(folder.iterdir()) else []
    (folder / "results.json").write_text(json.dumps([*old, found] if old else [found]))
    with open(folder / "episodes.jsonl", "a") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in records)
    return str(folder)


def test_mcnemar_in_closed_form():
    """6 of 7 discordant pairs for B: p = 2 (C(7,6) + C(7,7)) / 2^7."""
    outcomes = [(False, True)] * 6 + [(True, False)] + [(True, True)] * 9 + [(False, False)] * 4
    found = paired(outcomes)
    assert (found["only_a"], found["only_b"], found["episodes"]) == (1, 6, 20)
    assert found["difference"] == 0.25 == (found["successes_b"] - found["successes_a"]) / 20
    assert math.isclose(found["p"], 2 * (7 + 1) / 2**7)
    assert paired([(True, True)] * 5)["p"] == 1.0


def test_the_interval_covers_the_true_difference():
    """Its exact coverage, summed over all outcomes of 20 pairs."""
    total = 20
    counts = [(a, b) for a in range(total + 1) for b in range(total + 1 - a)]
    intervals = []
    for a, b in counts:
        rest = [(True, True)] * (total - a - b)
        pairs = [(True, False)] * a + [(False, True)] * b + rest
        intervals.append(paired(pairs)["ci95"])
    for only_a, only_b in ((0.1, 0.1), (0.05, 0.3), (0.3, 0.35), (0.01, 0.02), (0.4, 0.1)):
        shares = [only_a, only_b, 1 - only_a - only_b]
        chance = stats.multinomial.pmf([(a, b, total - a - b) for a, b in counts], total, shares)
        inside = [low <= only_b - only_a <= high for low, high in intervals]
        assert np.sum(chance[inside]) > 0.93


def test_swapping_mirrors_and_certainty_stays_inside():
    rng = np.random.default_rng(1)
    outcomes = [tuple(map(bool, pair)) for pair in rng.integers(0, 2, (30, 2))]
    ab, ba = paired(outcomes), paired([(b, a) for a, b in outcomes])
    assert ab["difference"] == -ba["difference"] and math.isclose(ab["p"], ba["p"])
    np.testing.assert_allclose(ab["ci95"], [-x for x in ba["ci95"][::-1]])
    assert ab["ci95"][0] <= ab["difference"] <= ab["ci95"][1]
    assert paired([(False, True)] * 100)["ci95"][1] <= 1.0


def test_rows_are_tasks_horizons_and_all(tmp_path):
    few = {"lift": [0, 0, 1, 1], "pick_and_place": [0, 0, 0, 0]}
    more = {"lift": [1, 1, 1, 0], "pick_and_place": [1, 0, 0, 0]}
    a = write(tmp_path / "a", few, label="spline")
    b = write(tmp_path / "b", more, noise=0.02)
    comparison = compare(a, b)
    (condition,) = comparison["conditions"]
    rows = {row["name"]: row for row in condition["rows"]}
    assert list(rows) == ["lift", "pick_and_place", "short", "middle", "all"]
    counts = {name: (row["only_a"], row["only_b"]) for name, row in rows.items()}
    assert counts["lift"] == counts["short"] == (1, 2) and counts["all"] == (1, 3)
    assert rows["all"]["p"] == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert condition["differs"] == {"policy": ["spline", "expert"], "waypoint_noise": [0.0, 0.02]}
    text = format_comparison(comparison)
    assert "waypoint_noise 0.0 -> 0.02" in text and "+25 %" in text


def test_the_command_writes_json(tmp_path, capsys):
    a = write(tmp_path / "a", {"lift": [0, 1]})
    b = write(tmp_path / "b", {"lift": [1, 1]})
    out = tmp_path / "comparison.json"
    assert cli.main(["bridgeact", "compare", a, b, f"--out={out}"]) == 0
    assert json.loads(out.read_text()) == compare(a, b)
    assert "lift" in capsys.readouterr().out
    assert cli.main(["bridgeact", "compare", a]) == 2


def test_conditions_are_paired_by_label(tmp_path):
    for name in ("a", "b"):
        for noise in (0.0, 0.1):
            write(tmp_path / name, {"lift": [1, 0]}, label=f"noise={noise}", noise=noise)
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))["conditions"]
    assert [c["a"] for c in found] == [c["b"] for c in found] == ["noise=0.0", "noise=0.1"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"seed": 1}, r"a holds seed 0, .*b does not"),
        ({"count": 2}, r"a holds lift 2, .*\(3 and 2 episodes\)"),
        ({"successes": {"pick_and_place": [1, 1, 1]}}, "a holds task lift, .*b does not"),
    ],
)
def test_episodes_that_differ_are_named(other, what, tmp_path):
    a = write(tmp_path / "a", {"lift": [1, 0, 1]})
    b = write(tmp_path / "b", **{"successes": {"lift": [1, 0, 1]}, **other})
    with pytest.raises(UsageError, match=what):
        compare(a, b)


def test_conditions_that_differ_and_no_evaluation(tmp_path):
    for label in ("x", "y"):
        a = write(tmp_path / "a", {"lift": [1]}, label=label)
    b = write(tmp_path / "b", {"lift": [1]}, label="x")
    with pytest.raises(UsageError, match="a holds y, .*b does not"):
        compare(a, b)
    with pytest.raises(UserError, match="no finished evaluation here"):
        compare(a, str(tmp_path / "nowhere"))
