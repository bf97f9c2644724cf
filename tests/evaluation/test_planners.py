"""The loop with any planner: what it says is followed, judged, kept, and never asked for twice."""

import json
from collections import Counter

import pytest

from benchmarks.oracle_endpoint import Oracle
from bridgeact_jax import cli
from bridgeact_jax.evaluation import planners, replanning
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.evaluate import evaluate
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.evaluation.rollouts import jobs_of, run_job
from bridgeact_jax.planning.oracle import PlannerErrors
from bridgeact_jax.planning.protocol import Unreachable
from bridgeact_jax.planning.watch import Alarm
from bridgeact_jax.sim.book import FAILURES
from tests.planning.endpoint import Endpoint, asks_for_plan, fails, text_of

TASKS, EPISODES = ("reach", "lift"), 2
PICTURE = 160  # pixels a side
KEY = "sk-this-is-secret-1234567890"
needs_graphics = pytest.mark.skipif(can_render() is not None, reason="no graphics library")


@pytest.fixture(scope="module")
def oracle():
    wanted = [(task, episode) for task in TASKS for episode in range(EPISODES)]
    return Oracle(wanted, size=PICTURE)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(planners, "PICTURE", PICTURE)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def remote(endpoint, **changes):
    return Condition(
        "spline", planner="remote", planner_url=endpoint.base_url, planner_model="m",
        planner_prices=(1e3, 1e3), **changes
    )  # fmt: skip


def run(out, condition, tasks=TASKS, episodes=EPISODES):
    return evaluate(
        {"spline": condition}, tasks, episodes=episodes, workers=1, out=out, suite="x",
        videos={}, title="t", attributed=False,
    )[0]  # fmt: skip


def records_of(out):
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]


@needs_graphics
@pytest.mark.slow
def test_a_planner_that_speaks_is_followed_kept_and_repeated(oracle, tmp_path):
    """Against the same plans without language; then from what was kept, with nobody to ask."""
    with Endpoint(oracle) as endpoint:
        result = run(tmp_path / "a", remote(endpoint))
        assert len(endpoint.requests) == 2 * len(TASKS) * EPISODES
        for path in (tmp_path / "a" / "batches").iterdir():
            path.unlink()
        before = (tmp_path / "a" / "episodes.jsonl").read_bytes()
        run(tmp_path / "a", remote(endpoint))
        assert len(endpoint.requests) == 2 * len(TASKS) * EPISODES
        assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == before
    exact = run(tmp_path / "b", Condition("spline"))
    repeated = run(
        tmp_path / "c", Condition("spline", planner="file", plans=str(tmp_path / "a/plans.jsonl"))
    )
    for task in TASKS:
        found = [r["tasks"][task]["successes"] for r in (result, exact, repeated)]
        assert found == [EPISODES] * 3
        assert result["tasks"][task]["planning"]["answers"] == EPISODES
        assert "planning" not in exact["tasks"][task]
    assert (tmp_path / "c" / "episodes.jsonl").read_bytes() == before
    assert (result["planner"], result["planner_model"]) == ("remote", "m")
    cost = json.loads((tmp_path / "a" / "timing.json").read_text())["planner"]
    tokens = cost["prompt_tokens"] + cost["completion_tokens"]
    assert cost["queries"] == 8 and cost["cost"] == pytest.approx(tokens / 1e3)
    assert list((tmp_path / "a" / "transcripts").iterdir())
    kept = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(kept) > 8 and not any(KEY.encode() in path.read_bytes() for path in kept)


@needs_graphics
def test_an_endpoint_that_is_down_ends_the_run_and_the_same_command_goes_on(oracle, tmp_path):
    with Endpoint(oracle, [None, None, fails(401)]) as endpoint:
        with pytest.raises(Unreachable, match="OPENAI_API_KEY"):
            run(tmp_path / "x", remote(endpoint), ["reach"])
        assert not (tmp_path / "x" / "results.json").exists()
        asked = len(endpoint.requests)
        result = run(tmp_path / "x", remote(endpoint), ["reach"])
        assert len(endpoint.requests) == asked + 2  # the first episode's plan had been kept
    assert result["tasks"]["reach"]["successes"] == 2


@needs_graphics
def test_an_answer_that_never_becomes_a_plan_is_a_failure_of_its_kind(oracle, tmp_path):
    first = []

    def evasive(messages):
        asked = text_of(messages[1])
        first.append(asked)
        return oracle(messages) if asked != first[0] else "I would rather not."

    with Endpoint(evasive) as endpoint:
        result = run(tmp_path / "x", remote(endpoint), ["reach"])
    assert result["tasks"]["reach"]["failures"] == {"no_plan": 1}
    failed, other = records_of(tmp_path / "x")
    assert other["success"] and failed["steps"] == 0 and failed["valid"]
    kept = sorted(path.read_text() for path in (tmp_path / "x" / "answers").iterdir())
    assert sum("no_plan" in text for text in kept) == 1 and len(kept) == 2


def outcome(condition, task="lift", count=6):
    wanted = [(task, episode) for episode in range(count)]
    return [run_job(job) for job in jobs_of("x", condition, wanted)][0]


@pytest.mark.slow
def test_the_guard_refuses_asks_again_and_stops_at_last():
    wrong = PlannerErrors(wrong_waypoint="through_table")
    refused = outcome(Condition("spline", errors=wrong, guard=True, asks=2), count=2)
    for record, commands in zip(refused.records, refused.commands, strict=True):
        assert record["failure_kind"] == "refused" and record["valid"] and not len(commands)
        planning = record["planning"]
        assert planning["answers"] == 2 == sum(planning["refused"].values())
    sometimes = PlannerErrors(wrong_waypoint="through_table", wrong_share=0.5)
    blind = outcome(Condition("spline", errors=sometimes))
    caught = outcome(Condition("spline", errors=sometimes, guard=True, asks=8))
    assert not all(record["success"] for record in blind.records)
    assert all(record["success"] for record in caught.records)
    assert "planning" not in blind.records[0]
    for record, before in zip(caught.records, blind.records, strict=True):
        again = record["planning"]["answers"] > 1
        assert again == (not before["success"])


@needs_graphics
@pytest.mark.slow
def test_the_reasons_of_a_refusal_reach_the_planner(tmp_path):
    env_oracle = Oracle([("lift", 0)], size=PICTURE)

    def improving(messages):
        text = env_oracle(messages)
        if not asks_for_plan(messages) or "refused" in text_of(messages[1]):
            return text
        plan = json.loads(text)
        plan["waypoints"][0]["xyz"][2] += 0.9  # far behind the table
        return json.dumps(plan)

    with Endpoint(improving) as endpoint:
        result = run(tmp_path / "x", remote(endpoint, guard=True), ["lift"], 1)
        again = [text_of(body["messages"][1]) for body in endpoint.requests]
    assert result["tasks"]["lift"]["successes"] == 1
    planning = result["tasks"]["lift"]["planning"]
    assert planning["answers"] == 2 and sum(planning["refused"].values()) == 1
    assert sum("waypoint 1" in text for text in again) == 2
    assert "Planning" in (tmp_path / "x" / "report.html").read_text()


@needs_graphics
def test_a_planner_is_asked_again_on_the_way_with_a_new_picture_and_what_happened(
    oracle, tmp_path, monkeypatch
):
    class Startled(replanning.Watch):
        def step(self, state, seen):
            return state, (Alarm("path_blocked", "a cat"),) * (seen.progress > 0.1)

    monkeypatch.setattr(replanning, "Watch", Startled)
    monkeypatch.setattr(replanning, "MOST", 1)
    first = {}

    def steady(messages):
        """The same way again, wherever the tool is by now."""
        later = "Done so far:" in text_of(messages[1])
        if not later:
            first[asks_for_plan(messages)] = oracle(messages)
        return first[asks_for_plan(messages)]

    with Endpoint(steady) as endpoint:
        result = run(tmp_path / "x", remote(endpoint, replan=True), ["reach"], 1)
        bodies = [body["messages"][1] for body in endpoint.requests]
    (record,) = records_of(tmp_path / "x")
    assert record["planning"]["alarms"] == {"path_blocked": 2} and record["steps"] > 5
    assert result["tasks"]["reach"]["failures"] == {"refused": 1}  # the cat stayed
    assert [("stopped: a cat." in text_of(body)) for body in bodies] == [False] * 2 + [True] * 2
    pictures = [body["content"][0]["image_url"]["url"] for body in bodies]
    assert pictures[0] == pictures[1] != pictures[2] == pictures[3]


def test_the_planners_failures_are_among_the_kinds():
    assert {"no_plan", "refused"} <= set(FAILURES)
    assert max(Counter(FAILURES).values()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--planner=remote", "--planner_model=m"], "needs --planner_url"),
        (["--planner=remote", "--planner_url=http://x/v1"], "needs --planner_model"),
        (["--planner=remote", "--planner_model=m", "--planner_url=ftp://x"], "must be http://"),
        (["--planner=file"], "needs --plans"),
        (["--planner=file", "--plans={tmp}/none"], "cannot be read"),
        (["--planner=file", "--plans=x", "--waypoint_noise=0.1"], "an error of --planner=oracle"),
        (["--planner=file", "--plans=x", "--ablation=shuffled_guidance"], "needs --planner=oracle"),
        (["--planner=remote", "--planner_prices=2.5"], "must be two numbers"),
        (["--policy=cloud_only", "--guard"], "--guard changes nothing"),
        (["--planner=orakel"], "did you mean 'oracle'"),
    ],
)
def test_a_planner_that_cannot_be_asked_is_one_clear_line(words, message, tmp_path, capsys):
    words = [word.format(tmp=tmp_path) for word in words]
    command = ["bridgeact", "evaluate", "--policy=spline", f"--out={tmp_path}/x", *words]
    assert cli.main(command) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
