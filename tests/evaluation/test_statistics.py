"""Intervals against SciPy and the closed form; summaries against counting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bridgeact_jax.evaluation import statistics

HORIZONS = {"lift": "short", "reach": "short", "pick_and_place": "middle"}
SETTINGS = {
    "policy": "expert", "planner": "oracle", "suite": "all", "seed": 0, "waypoint_noise": 0.02,
    "depth_noise": 0.0, "checkpoint": None,
}


def episode(task="lift", success=True, kind=None, wrong=False, valid=True, first=True, cause=None):
    return {"task": task, "success": success, "failure_kind": kind, "wrong_object": wrong,
            "valid": valid, "subgoals": {"first": first, "second": success}, "cause": cause}


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts):
    successes, episodes = counts
    reference = stats.binomtest(successes, episodes).proportion_ci(method="wilson")
    low, high = statistics.wilson(successes, episodes)
    np.testing.assert_allclose((low, high), (reference.low, reference.high), atol=1e-12)
    assert 0 <= low <= successes / episodes <= high <= 1


def test_wilson_in_closed_form():
    z = statistics.Z_95
    assert math.isclose(z, stats.norm.ppf(0.975), rel_tol=1e-15)
    assert statistics.wilson(0, 0) == (0.0, 1.0)
    assert statistics.wilson(0, 10) == (0.0, pytest.approx(z**2 / (10 + z**2)))
    assert statistics.wilson(10, 10) == (pytest.approx(10 / (10 + z**2)), 1.0)
    # The ends solve (p - s/n)^2 = z^2 p (1 - p) / n.
    for p in statistics.wilson(7, 25):
        assert math.isclose((p - 7 / 25) ** 2, z**2 * p * (1 - p) / 25, rel_tol=1e-9)


@pytest.mark.parametrize("counts", [(3, 2), (-1, 5), (1, 0)])
def test_wilson_refuses_impossible_counts(counts):
    with pytest.raises(ValueError):
        statistics.wilson(*counts)


def test_summary_follows_the_contract():
    episodes = [
        episode("lift"),
        episode("pick_and_place", False, "dropped"),
        episode("lift", False, "wrong_object", wrong=True, cause="planner"),
        episode("lift", False, "diverged", valid=False),
        episode("lift", False, None, first=False, cause="planner"),
    ]
    result = statistics.summarise(episodes, horizons=HORIZONS, settings=SETTINGS)
    assert list(result["tasks"]) == ["lift", "pick_and_place"]
    lift = result["tasks"]["lift"]
    assert (lift["episodes"], lift["successes"], lift["success_rate"]) == (4, 1, 0.25)
    assert lift["horizon"] == "short"
    assert lift["ci95"] == list(statistics.wilson(1, 4))
    assert lift["failures"] == {"diverged": 1, "unknown": 1, "wrong_object": 1}
    assert lift["subgoals"] == {"first": 3, "second": 1} and lift["subgoal_share"] == 0.5
    assert lift["causes"] == {"planner": 2} and "causes" not in result["tasks"]["pick_and_place"]
    assert (lift["wrong_object"], lift["wrong_object_rate"], lift["invalid"]) == (1, 0.25, 1)
    assert result["summary"] == {"short": 0.25, "middle": 0.0, "long": None}
    assert {name: result[name] for name in SETTINGS} == SETTINGS


def test_no_episodes_at_all():
    result = statistics.summarise([], horizons=HORIZONS, settings=SETTINGS)
    assert result["tasks"] == {}
    assert result["summary"] == {"short": None, "middle": None, "long": None}


@given(
    st.lists(
        st.builds(
            episode, st.sampled_from(list(HORIZONS)), st.booleans(),
            st.sampled_from([None, "dropped", "timeout"]), st.booleans(), st.booleans(),
        )
    ),
    st.randoms(),
)
def test_counts_add_up_in_any_order(episodes, random):
    result = statistics.summarise(episodes, horizons=HORIZONS, settings=SETTINGS)
    for name, task in result["tasks"].items():
        assert task["episodes"] == sum(e["task"] == name for e in episodes)
        assert task["successes"] + sum(task["failures"].values()) == task["episodes"]
    shuffled = list(episodes)
    random.shuffle(shuffled)
    assert statistics.summarise(shuffled, horizons=HORIZONS, settings=SETTINGS) == result


def test_points_are_means_with_intervals_of_what_can_be_had():
    found = [{"numbers": 1, "ocr": n, "math": 2} for n in (4, 4, 1)]
    episodes = [{**episode(), "points": points, "unparsable": 1} for points in found]
    task = statistics.summarise(episodes, horizons=HORIZONS, settings=SETTINGS)["tasks"]["lift"]
    ocr = task["points"]["ocr"]
    assert (ocr["total"], ocr["mean"], ocr["out_of"], task["unparsable"]) == (9, 3, 4, 3)
    low, high = (end / 4 for end in ocr["ci95"])  # solves (p - m)^2 = z^2 p (1 - p) / n
    for p in (low, high):
        right = statistics.Z_95**2 * p * (1 - p) / 3
        assert math.isclose((p - 0.75) ** 2, right, rel_tol=1e-9)
    assert task["points"]["math"]["ci95"][1] == 2 and set(task["points"]) == {"ocr", "math"}


def test_answers_refusals_and_alarms_are_added_up_where_there_are_any():
    told = [
        {"answers": 2, "refused": {"leap": 1}, "alarms": {}},
        {"answers": 3, "refused": {"leap": 1, "collision": 1}, "alarms": {"stalled": 2}},
    ]
    episodes = [{**episode(), "planning": one} for one in told] + [episode(task="reach")]
    found = statistics.summarise(episodes, horizons=HORIZONS, settings=SETTINGS)["tasks"]
    assert found["lift"]["planning"] == {
        "answers": 5, "refused": {"collision": 1, "leap": 2}, "alarms": {"stalled": 2}
    }  # fmt: skip
    assert "planning" not in found["reach"]
