"""The remote planner against a local endpoint that misbehaves in every way it can."""

import json
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bridgeact_jax.errors import UsageError
from bridgeact_jax.planning.answers import write_anchors, write_plan
from bridgeact_jax.planning.protocol import (
    Anchor,
    Plan,
    PlannedPose,
    PlanningError,
    Unreachable,
    View,
)
from bridgeact_jax.planning.remote import SEED, RemotePlanner, prices_of
from tests.planning.conftest import DEPTH
from tests.planning.endpoint import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    Endpoint,
    asks_for_plan,
    completion,
    cuts,
    drops,
    fails,
    hangs,
    raw,
    refuses,
    says,
    text_of,
)

KEY = "sk-local-0123456789abcdef"
PIXEL = (35.0, 15.0)
WORDS = "First above the cube, then down."
PLAN = Plan(
    (
        PlannedPose((0.05, -0.02, 0.6), 1.0, (0.8, 0.6, 0.0, 0.0)),
        PlannedPose((0.05, -0.02, 0.75), 0.0),
    ),
    PlannedPose((0.05, -0.02, 0.5), 0.0, (0.6, 0.8, 0.0, 0.0)),
    words=WORDS,
    confidence=0.75,
)


def honest(messages):
    return write_plan(PLAN) if asks_for_plan(messages) else write_anchors((Anchor("grasp", PIXEL),))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("LOCAL_KEY", KEY)


def planner(endpoint, **options):
    given = {"api_key_variable": "LOCAL_KEY", "timeout": 5.0, **options}
    return RemotePlanner("model-x", endpoint.base_url, **given)


def test_the_plan_of_an_honest_endpoint(request_, tmp_path):
    with Endpoint(honest) as endpoint:
        plan = planner(endpoint, prices=(2.0, 10.0)).plan(request_)
    assert plan.waypoints == PLAN.waypoints and plan.target == PLAN.target
    assert plan.words == WORDS and plan.confidence == 0.75
    assert plan.anchors[0].pixel == PIXEL
    np.testing.assert_allclose(plan.anchors[0].point, [5.5 / 50 * 0.8, -4.5 / 52 * 0.8, DEPTH])
    assert plan.usage["queries"] == 2 and 0 < plan.usage["seconds"] < 60
    assert plan.usage["prompt_tokens"] == 2 * PROMPT_TOKENS
    assert plan.usage["completion_tokens"] == 2 * COMPLETION_TOKENS
    spent = 2 * (PROMPT_TOKENS * 2.0 + COMPLETION_TOKENS * 10.0) / 1e6
    assert plan.usage["cost"] == pytest.approx(spent)


def test_what_the_endpoint_is_sent(request_):
    with Endpoint(honest) as endpoint:
        planner(endpoint).plan(request_)
        planner(endpoint).plan(request_)
    first, second, *again = endpoint.requests
    assert again == [first, second]  # the same request, the same bytes
    assert first["model"] == "model-x" and first["temperature"] == 0 and first["seed"] == SEED
    for body, field in ((first, "anchors"), (second, "waypoints")):
        schema = body["response_format"]["json_schema"]
        assert schema["strict"] and field in schema["schema"]["required"]
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert [message["role"] for message in second["messages"]] == [
        "system", "user", "assistant", "user",
    ]
    picture = first["messages"][1]["content"][0]["image_url"]["url"]
    assert picture.startswith("data:image/png;base64,")
    assert "xyz [0.088, -0.069, 0.8]" in text_of(second["messages"][-1])


def test_without_a_key_a_local_server_is_sent_a_word(request_, monkeypatch):
    monkeypatch.delenv("LOCAL_KEY")
    with Endpoint(honest) as endpoint:
        planner(endpoint).plan(request_)
    assert endpoint.headers[0]["authorization"] == "Bearer none"


SOON = {"retry_after_ms": "10"}
WRONG_ANCHORS = {
    "prose": "The cube is in the middle.",
    "empty": "",
    "nothing": None,
    "outside": '{"anchors": [{"label": "grasp", "pixel": [480, 600]}]}',
    "shares": '{"anchors": [{"label": "grasp", "pixel": [0.4, 0.6]}]}',
    "NaN": '{"anchors": [{"label": "grasp", "pixel": [NaN, 3]}]}',
    "another language": '{"anker": [{"name": "Griff", "pixel": [3, 3]}]}',
}


@pytest.mark.parametrize("text", WRONG_ANCHORS.values(), ids=WRONG_ANCHORS.keys())
def test_an_unusable_answer_is_sent_back_with_a_complaint(request_, text):
    with Endpoint(honest, [says(text)]) as endpoint:
        plan = planner(endpoint).plan(request_)
    assert plan.waypoints == PLAN.waypoints
    assert plan.usage["queries"] == 3
    _, again, final = endpoint.requests
    *_, wrong, complaint = again["messages"]
    assert wrong["role"] == "assistant" and wrong["content"] == (text or "(nothing)")
    assert complaint["role"] == "user" and "Answer the whole question again." in text_of(complaint)
    assert len(final["messages"]) == 4  # what went wrong is not told again


def test_an_anchor_without_depth_is_complained_of(request_):
    depth = request_.views[0].depth.copy()
    depth[:20, :20] = 0
    view = replace(request_.views[0], depth=depth)
    with Endpoint(honest, [says('{"anchors": [{"label": "a", "pixel": [5, 6]}]}')]) as endpoint:
        planner(endpoint).plan(replace(request_, views=(view,)))
    complaint = text_of(endpoint.requests[1]["messages"][-1])
    assert "pixel (5, 6)" in complaint and "60 x 40" in complaint


def test_a_camera_without_depth(request_):
    view = View(request_.views[0].picture, request_.views[0].camera)
    blind = replace(request_, views=(view,))
    with Endpoint(honest) as endpoint:
        with pytest.raises(PlanningError, match="no depth"):
            planner(endpoint).plan(blind)
        assert not endpoint.requests
        plan = planner(endpoint, estimate=lambda picture: np.full(picture.shape[:2], 2.0)).plan(
            blind
        )
    assert plan.anchors[0].point[2] == 2.0


def test_complaints_are_bounded(request_):
    with Endpoint(lambda messages: "I do not know.") as endpoint:
        with pytest.raises(PlanningError, match="model-x gave no usable answer.*3 times") as error:
            planner(endpoint, complaints=2).plan(request_)
    assert len(endpoint.requests) == 3
    assert error.value.usage["prompt_tokens"] == 3 * PROMPT_TOKENS


def test_an_answer_cut_off_by_its_length(request_):
    cut = says(write_anchors((Anchor("grasp", PIXEL),))[:20], reason="length")
    with Endpoint(honest, [cut]) as endpoint:
        planner(endpoint).plan(request_)
    assert "cut off" in text_of(endpoint.requests[1]["messages"][-1])


@pytest.mark.parametrize(
    "fault",
    [says(None, refusal="I cannot help"), says(None, reason="content_filter")],
    ids=["refusal", "filter"],
)
def test_a_refusal_is_not_asked_again(request_, fault):
    with Endpoint(honest, [fault]) as endpoint:
        with pytest.raises(PlanningError, match="model-x refused"):
            planner(endpoint).plan(request_)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [fails(429, **SOON), fails(500, **SOON), fails(503, **SOON), cuts, drops],
    ids=["429", "500", "503", "cut", "dropped"],
)
def test_what_passes_is_tried_again(request_, fault, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with Endpoint(honest, [fault, fault]) as endpoint:
        plan = planner(endpoint, tries=3).plan(request_)
    assert plan.waypoints == PLAN.waypoints
    assert len(endpoint.requests) == 4 and plan.usage["queries"] == 2


def test_retry_after_is_waited_for(request_):
    with Endpoint(honest, [fails(429, retry_after="0.3")]) as endpoint:
        plan = planner(endpoint).plan(request_)
    assert plan.usage["seconds"] >= 0.3


@pytest.mark.parametrize(
    "fault, message",
    [
        (fails(429, "slow down", **SOON), "429: .*slow down.*asked 2 times"),
        (fails(500, "cuda error", **SOON), "500: .*cuda error"),
        (fails(401, f"wrong key {KEY}"), "401: .*LOCAL_KEY"),
        (fails(404, "no model-x"), "404: .*no model-x.*/v1.*'model-x'"),
        (fails(400, "no pictures"), "400: .*no pictures"),
        (cuts, "cannot be reached, tried 2 times"),
        (drops, "cannot be reached, tried 2 times"),
        (hangs, "no answer within 0.3 s, 2 times"),
        (raw(b"<html>Welcome</html>"), "not as a chat endpoint does.*/v1"),
        (raw(b"{not json", "application/json"), "not as a chat endpoint does"),
    ],
    ids=["429", "500", "401", "404", "400", "cut", "dropped", "hangs", "web page", "not JSON"],
)
def test_an_endpoint_that_gives_no_answer(request_, fault, message, monkeypatch, tmp_path):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    transcript = tmp_path / "transcript.jsonl"
    timeout = 0.3 if fault is hangs else 5.0
    with Endpoint(honest, [fault] * 9) as endpoint:
        remote = planner(endpoint, tries=2, timeout=timeout, transcript=transcript)
        with pytest.raises(Unreachable, match=message) as error:
            remote.plan(request_)
    told = str(error.value)
    assert "\n" not in told and endpoint.base_url in told and KEY not in told
    (line,) = transcript.read_text().splitlines()
    assert json.loads(line)["error"] == told and KEY not in line


def test_an_endpoint_that_is_down(request_, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        remote = RemotePlanner("m", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", tries=2)
        with pytest.raises(Unreachable, match="cannot be reached, tried 2 times: .*refused"):
            remote.plan(request_)


@pytest.mark.parametrize("option", ["response_format", "seed", "temperature", "max_tokens"])
def test_an_option_that_the_server_refuses_is_given_up(request_, option):
    with Endpoint(honest, [refuses(option)] * 5) as endpoint:
        plan = planner(endpoint).plan(request_)
    assert plan.waypoints == PLAN.waypoints
    assert [option in body for body in endpoint.requests] == [True, False, False]
    if option == "max_tokens":
        assert endpoint.requests[-1]["max_completion_tokens"] == 4096


def test_no_choices_is_an_empty_answer(request_):
    body = json.dumps({**completion(""), "choices": []}).encode()
    with Endpoint(honest, [raw(body, "application/json")]) as endpoint:
        assert planner(endpoint).plan(request_).usage["queries"] == 3


def test_transcript_has_every_exchange_and_neither_key_nor_pictures(request_, tmp_path, caplog):
    caplog.set_level("DEBUG")
    path = tmp_path / "transcript.jsonl"
    path.write_text('{"torn": ')  # by a run that was killed
    with Endpoint(honest, [says(f"My key is {KEY}.")]) as endpoint:
        planner(endpoint, transcript=path).plan(request_)
    text = path.read_text()
    assert KEY not in text and "base64" not in text
    assert caplog.text and KEY not in caplog.text
    wrong, anchors, plan = map(json.loads, text.splitlines()[1:])
    assert wrong["complaint"].startswith("There is no JSON") and wrong["question"] == "anchors"
    assert anchors["answer"] == write_anchors((Anchor("grasp", PIXEL),))
    assert plan["answer"] == write_plan(PLAN) and plan["finish_reason"] == "stop"
    assert plan["prompt_tokens"] == PROMPT_TOKENS and plan["seconds"] > 0
    picture = plan["messages"][1]["content"][0]
    assert len(picture["sha256"]) == 64 and picture["bytes"] > 0


def test_an_answer_with_the_key_and_half_a_surrogate_pair_is_used(request_, tmp_path):
    """Both answers, and one that is sent back with a complaint that quotes it."""
    path, noise = tmp_path / "transcript.jsonl", f"{KEY} \ud83d "
    wrong = says(noise + json.dumps({"anchors": [], KEY: 1}))
    quoted = says(json.dumps({KEY: 1}).replace("sk", "\\u0073k"))
    with Endpoint(lambda messages: noise + honest(messages), [wrong, quoted]) as endpoint:
        plan = planner(endpoint, transcript=path).plan(request_)
    assert plan.waypoints == PLAN.waypoints
    assert plan.words == f"[key] ?\n[key] ? {WORDS}"
    sent = json.dumps(endpoint.requests) + path.read_text()
    assert KEY not in sent and '\\"[key]\\": keep the names' in sent
    with Endpoint(lambda messages: json.dumps({KEY: 1})) as endpoint:
        with pytest.raises(PlanningError, match="no field.*key") as error:
            planner(endpoint).plan(request_)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:8000/v1", "ftp://host/v1", "http://user:secret@host/v1",
        "http://:secret@host/v1", "http://host/v1?key=secret", "http://[::1/v1", "http://host:abc",
    ],
)
def test_an_address_that_cannot_be_right(url):
    with pytest.raises(UsageError, match="URL must be http") as error:
        RemotePlanner("m", url)
    assert "secret" not in str(error.value)


def test_prices():
    assert prices_of(["2.5", "0"]) == (2.5, 0.0) and prices_of(None) is None
    for words in ([], ["2.5"], ["1", "2", "3"], ["a", "1"], ["nan", "1"], ["1", "nan"],
                  ["inf", "1"], ["1", "-0.5"]):  # fmt: skip
        with pytest.raises(UsageError, match="must be two numbers"):
            prices_of(words)


def test_a_key_that_is_none(monkeypatch):
    monkeypatch.setenv("LOCAL_KEY", "two words of it")
    with pytest.raises(UsageError, match="LOCAL_KEY holds is no key") as error:
        RemotePlanner("m", "http://localhost/v1", api_key_variable="LOCAL_KEY")
    assert "two words" not in str(error.value)


def test_openai_is_imported_only_to_ask():
    program = (
        "import sys\n"
        "import bridgeact_jax.cli, bridgeact_jax.planning.remote, bridgeact_jax.planning.recorded\n"
        "assert 'openai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
