"""The server over real sockets: the protocol and the door."""

import logging
import urllib.error
import urllib.request

import msgpack
import numpy as np
import pytest
import websockets
from websockets.sync.client import connect

from bridgeact_jax import cli
from bridgeact_jax.errors import UserError
from bridgeact_jax.serving.client import Client, ServerError, read_token
from bridgeact_jax.serving.server import STRIKES, serving
from bridgeact_jax.serving.settings import Settings
from tests.serving.talk import (
    OBSERVATION,
    PATIENT,
    PLAN,
    address,
    page,
    wait_for,
)

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def server(engine):
    with serving(engine, PATIENT) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(address(server)) as client:
        yield client


def test_metadata_come_first_and_actions_for_an_observation(client):
    assert client.metadata["action_horizon"] == 8 and client.metadata["control_period"] == 0.1
    answer = client.infer({**OBSERVATION, "plan": PLAN})
    assert answer["status"] == "ok"
    assert answer["actions"].shape == (8, 8) and answer["actions"].dtype == np.float32
    arrays = [value for value in answer.values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 1  # openpi's ActionChunkBroker would slice any other
    assert {"sample_ms", "decode_ms"} <= answer["policy_timing"].keys()
    again = client.infer({**OBSERVATION, "plan": PLAN})
    assert again["server_timing"]["prev_total_ms"] > 0


def test_what_leaves_the_server_is_limited(client):
    far = {**OBSERVATION, "position": [0.86, 0.0, 0.3]}
    answer = client.infer({**far, "plan": {**PLAN, "position": PLAN["position"] + [1, 0, 0]}})
    assert (answer["actions"][:, 0] <= 0.86 + 1e-5).all()


def test_a_mistake_is_a_text_frame_and_the_connection_goes_on(client):
    with pytest.raises(ServerError, match="unknown key 'positoin'") as error:
        client.infer({"positoin": 1})
    assert not error.value.lost
    assert client.infer({**OBSERVATION, "plan": PLAN})["status"] == "ok"


def test_mistake_after_mistake_ends_it(server):
    with Client(address(server)) as client:
        for _ in range(STRIKES):
            with pytest.raises(ServerError):
                client.infer({})
        with pytest.raises(ServerError) as error:
            client.infer({})
        assert error.value.lost


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93\x01", "text", msgpack.packb({1: 2})])
def test_what_is_no_message_is_answered_and_ended(server, frame):
    with connect(address(server), compression=None) as raw:
        raw.recv()
        raw.send(frame)
        assert isinstance(raw.recv(), str)
        with pytest.raises(websockets.ConnectionClosed):
            raw.recv(timeout=10)


def test_a_message_too_large_ends_it(engine):
    with serving(engine, Settings(port=0, max_message=10_000)) as server:
        with connect(address(server)) as raw:
            raw.recv()
            with pytest.raises(websockets.ConnectionClosed) as error:
                raw.send(b"x" * 20_000)
                raw.recv(timeout=10)
        assert error.value.rcvd.code == 1009
        assert page(server, "/healthz") == "OK\n"


def test_reset_begins_anew_and_old_observations_are_refused(client):
    seen = {**OBSERVATION, "plan": PLAN}
    assert client.infer({**seen, "time": 5.0})["status"] == "ok"
    stale = client.infer({**seen, "time": 3.0})
    assert stale["status"] == "stale" and "actions" not in stale
    assert client.infer({**seen, "time": 6.0, "sent": 9.0})["status"] == "stale"
    client.reset(seed=1)
    first = client.infer({**seen, "time": 0.0})["actions"]
    client.reset(seed=1)
    assert (client.infer({**seen, "time": 0.0})["actions"] == first).all()


def test_a_plan_can_be_given_beforehand(client):
    assert (client.plan({**OBSERVATION, "plan": PLAN})["position"] == PLAN["position"]).all()
    assert client.infer(OBSERVATION)["status"] == "ok"


def test_late_answers_are_dropped_and_counted(engine):
    with serving(engine, Settings(port=0, deadline=1e-4)) as server:
        with Client(address(server)) as client:
            answer = client.infer({**OBSERVATION, "plan": PLAN})
        assert answer["status"] == "late" and "actions" not in answer
        assert server.metrics.counts()["late"] == 1


# ---- the door -----------------------------------------------------------------------------------


def test_health_and_metrics(server, client):
    client.infer({**OBSERVATION, "plan": PLAN})
    assert page(server, "/healthz") == "OK\n"
    metrics = page(server, "/metrics")
    assert 'bridgeact_seconds{part="sample",quantile="0.95"}' in metrics
    assert "bridgeact_requests_total" in metrics


def test_without_the_token_nobody_comes_in(engine, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(engine, Settings(port=0, token=TOKEN)) as server:
        for token in (None, "wrong", TOKEN[:-1], TOKEN + "x"):
            with pytest.raises(ServerError, match="refused \\(401\\)"):
                Client(address(server), token=token)
            with pytest.raises(urllib.error.HTTPError, match="401"):
                page(server, "/metrics", token)
        assert page(server, "/healthz") == "OK\n"
        assert "bridgeact_requests" in page(server, "/metrics", TOKEN)
        with Client(address(server), token=TOKEN) as client:
            with pytest.raises(ServerError):
                client.infer({"secret": "payload"})
    assert TOKEN not in caplog.text and "payload" not in caplog.text
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_pages_in_a_browser_command_no_robot(server):
    with pytest.raises(websockets.InvalidStatus, match="403"):
        connect(address(server), origin="http://evil.example")


def test_there_are_no_more_clients_than_allowed(engine):
    with serving(engine, Settings(port=0, max_clients=1)) as server:
        with Client(address(server)):
            with pytest.raises(ServerError, match="too many clients"):
                Client(address(server))
        wait_for(lambda: "bridgeact_connected 0" in page(server, "/metrics"))
        Client(address(server)).close()


@pytest.mark.parametrize("words, message", [
    (["--host=0.0.0.0"], "--host=0.0.0.0 lets other machines in: give --token_file"),
    (["--host=192.168.1.5"], "lets other machines in"),
    (["--planner=remote"], "--planner=remote needs --planner_url"),
    (["--planner=file"], "--planner=file needs --plans"),
    (["--workspace=1,2,3"], "--workspace=1,2,3: must be x,y,z"),
    (["--workspace=1,1,1,0,0,0"], "must be x,y,z of the low corner"),
    (["--port=99999"], "--port must be"),
    (["--execute=9"], "--execute must be"),
    (["--speed=nan"], "--speed"),
])  # fmt: skip
def test_a_wrong_command_line_is_explained(words, message, capsys, monkeypatch):
    monkeypatch.delenv("BRIDGEACT_TOKEN", raising=False)
    assert cli.main(["bridgeact", "serve", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_port_that_is_taken_is_named(engine, server):
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        with serving(engine, Settings(port=server.port)):
            pass


def test_tokens_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("BRIDGEACT_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("BRIDGEACT_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    path.write_text("another-token-of-length\n")
    assert read_token(path) == "another-token-of-length"
    path.write_text("short")
    with pytest.raises(UserError, match="16 or more") as error:
        read_token(path)
    assert "short" not in str(error.value).replace(str(path), "")
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "none")
