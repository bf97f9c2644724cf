"""The server over real sockets: the protocol, the door, and what happens when something fails."""

import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
import websockets
from websockets.sync.client import connect

from bridgeact_jax import cli
from bridgeact_jax.errors import UserError
from bridgeact_jax.planning.protocol import Plan, PlannedPose, PlanningError
from bridgeact_jax.serving import wire
from bridgeact_jax.serving.asking import AT_ONCE
from bridgeact_jax.serving.client import Client, Driver, ServerError, read_token
from bridgeact_jax.serving.server import STRIKES, serving
from bridgeact_jax.serving.settings import Settings

DOWN = np.float32([0, 1, 0, 0])
HOME = np.float32([0.5, 0.0, 0.3])
POSE = np.float32([*HOME, *DOWN, 1])
PLAN = {
    "position": np.float32([[0.5, 0.05, 0.2], [0.5, 0.1, 0.1]]),
    "rotation": np.tile(DOWN, (2, 1)),
    "gripper": np.float32([1, 0]),
}
OBSERVATION = {
    "position": HOME,
    "rotation": DOWN,
    "gripper_width": 0.9,
    "cloud": np.random.default_rng(0).normal(HOME, 0.1, (1024, 3)).astype(np.float32),
}
TOKEN = "a-token-of-some-length"
PATIENT = Settings(port=0, deadline=20.0)


@pytest.fixture(scope="module")
def server(engine):
    with serving(engine, PATIENT) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(address(server)) as client:
        yield client


def address(server):
    return f"ws://127.0.0.1:{server.port}"


def page(server, path, token=None):
    headers = {} if token is None else {"Authorization": f"Api-Key {token}"}
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    return urllib.request.urlopen(asked, timeout=10).read().decode()


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


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


# ---- planners -----------------------------------------------------------------------------------


class Thinker:
    """Answers a prompt's plan once it may; the prompt "impossible" has none."""

    def __init__(self):
        self.may, self.asked = threading.Event(), []

    def plan(self, request):
        self.asked.append(request)
        assert self.may.wait(20)
        if request.instruction == "impossible":
            raise PlanningError("there is no way")
        return Plan((), PlannedPose((0.0, 0.0, 0.4), 0.0, (1.0, 0.0, 0.0, 0.0)))


SEEN = {
    **{key: OBSERVATION[key] for key in ("position", "rotation", "gripper_width")},
    "depth": np.full((20, 30), 0.5, np.float32),
    "image": np.zeros((20, 30, 3), np.uint8),
    "intrinsics": np.array([[30, 0, 14.5], [0, 30, 9.5], [0, 0, 1.0]]),
    "camera_pose": np.array([[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1.0]]),
}


def test_the_planner_is_asked_when_the_prompt_changes_and_the_arm_waits(engine):
    thinker = Thinker()
    with serving(engine, PATIENT, thinker) as server, Client(address(server)) as client:
        assert client.metadata["plans"]
        for _ in range(3):
            answer = client.infer({**SEEN, "prompt": "lift"})
            assert answer["status"] == "planning"
            assert answer["actions"] == pytest.approx(np.tile(POSE, (8, 1)))
        thinker.may.set()
        wait_for(lambda: client.infer({**SEEN, "prompt": "lift"})["status"] == "ok")
        assert client.infer({**SEEN, "prompt": "lift"})["length"] == pytest.approx(
            np.linalg.norm(HOME - [0.5, 0, 0.1]) + 0.02, abs=2e-3
        )
        assert len(thinker.asked) == 1
        thinker.may.clear()
        assert client.infer({**SEEN, "prompt": "impossible"})["status"] == "planning"
        thinker.may.set()
        wait_for(lambda: client.infer({**SEEN, "prompt": "impossible"})["status"] == "no_plan")
        answer = client.infer({**SEEN, "prompt": "impossible"})
        assert answer["message"] == "there is no way" and len(answer["actions"]) == 8
        assert len(thinker.asked) == 2
        with pytest.raises(ServerError, match="no plan: there is no way"):
            client.plan({**SEEN, "prompt": "impossible"})
        plan = client.plan({**SEEN, "prompt": "lift"})
        assert plan["position"] == pytest.approx(np.float32([[0.5, 0, 0.1]]))


def test_what_the_planner_needs_is_asked_for(engine):
    with serving(engine, PATIENT, Thinker()) as server, Client(address(server)) as client:
        with pytest.raises(ServerError, match="no 'image'"):
            client.infer({**{k: v for k, v in SEEN.items() if k != "image"}, "prompt": "lift"})
        with pytest.raises(ServerError, match="no 'depth'"):
            client.infer({**OBSERVATION, "prompt": "lift"})


def test_a_plan_request_that_fails_does_not_count_as_asked(engine):
    blind = {key: value for key, value in SEEN.items() if key != "image"}
    with serving(engine, PATIENT, Thinker()) as server, Client(address(server)) as client:
        with pytest.raises(ServerError, match="no 'image'"):
            client.plan({**blind, "prompt": "lift"})
        assert client.infer({**SEEN, "prompt": "lift"})["status"] == "planning"


def test_the_prompt_of_a_plan_that_was_sent_is_not_asked_again(engine):
    thinker = Thinker()
    with serving(engine, PATIENT, thinker) as server, Client(address(server)) as client:
        assert client.infer({**SEEN, "plan": PLAN, "prompt": "lift"})["status"] == "ok"
        assert client.infer({**SEEN, "prompt": "lift"})["status"] == "ok"
        assert not thinker.asked


def test_prompt_after_prompt_does_not_start_thread_after_thread(engine):
    thinker = Thinker()
    with serving(engine, PATIENT, thinker) as server, Client(address(server)) as client:
        for number in range(3 * AT_ONCE):
            client.infer({**SEEN, "prompt": f"lift {number}"})
        wait_for(lambda: len(thinker.asked) == AT_ONCE)
        thinker.may.set()
        wait_for(lambda: client.infer({**SEEN, "prompt": f"lift {number}"})["status"] == "ok")
        assert len(thinker.asked) <= AT_ONCE + 1


# ---- what dies ----------------------------------------------------------------------------------


def test_when_the_server_is_gone_the_last_pose_is_held_for_good(engine):
    with serving(engine, PATIENT) as server:
        client = Client(address(server))
        driver = Driver(client, POSE)
        moved = driver.step({**OBSERVATION, "plan": PLAN})
        assert moved.status == "ok" and not (moved.pose == POSE).all()
        last = driver.step({**OBSERVATION, "plan": PLAN}).pose
    for _ in range(3):
        held = driver.step({**OBSERVATION, "plan": PLAN})
        assert held.status.startswith("held: ws://") and held.answer is None
        assert (held.pose == last).all()


def test_between_late_answers_the_chunk_is_executed_then_its_end_is_held():
    rows = np.tile(POSE, (8, 1))
    rows[:, 0] += 0.01 * np.arange(1, 9)
    answers = iter([{"status": "ok", "actions": rows}] + [{"status": "late"}] * 20)
    client = SimpleNamespace(infer=lambda observation: next(answers))
    now = [0.0]
    driver = Driver(client, POSE, clock=lambda: now[0])
    for step in range(12):
        now[0] = 0.1 * step
        command = driver.step({})
        assert command.pose == pytest.approx(rows[min(step, 7)], abs=1e-6)
        assert command.status == ("ok" if step == 0 else "late" if step < 8 else "held: late")


def test_after_a_stall_the_motion_goes_on_where_it_was():
    """No command is further from the one before than one and a half steps of the chunk."""
    rows = np.tile(POSE, (8, 1))
    rows[:, 0] += 0.06 * np.arange(8)
    now, waits = [0.0], iter([0.02, 0.02, 0.7, 0.02, 0.3, 0.02])

    def infer(observation):
        now[0] += next(waits)
        chunk = rows.copy()
        chunk[:, 0] += driver._last[0] - POSE[0]
        return {"status": "ok", "actions": chunk}

    driver = Driver(SimpleNamespace(infer=infer), POSE, clock=lambda: now[0])
    places = []
    for _ in range(6):
        places.append(driver.step({}).pose[0])
        now[0] += 0.08
    assert np.all(np.diff(places) < 0.06 * 1.5 + 1e-6) and places[-1] > places[0]


def test_what_is_no_chunk_holds_the_arm_for_good():
    answers = iter([{"status": "ok", "actions": np.full((8, 8), np.nan)}])
    driver = Driver(SimpleNamespace(infer=lambda observation: next(answers)), POSE)
    for _ in range(2):
        command = driver.step({})
        assert (command.pose == POSE).all() and command.status.startswith("held: a chunk")


def test_a_client_that_does_not_read_is_dropped_and_the_others_are_served(engine, caplog):
    caplog.set_level(logging.INFO)
    settings = Settings(port=0, deadline=20.0, write_timeout=0.3)
    with serving(engine, settings) as server, Client(address(server)) as good:
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        tcp.connect(("127.0.0.1", server.port))
        message = wire.pack({**OBSERVATION, "plan": PLAN, "time": 0.0})

        def flood():
            with suppress(OSError, websockets.ConnectionClosed):
                with connect(address(server), sock=tcp, compression=None, max_queue=1) as slow:
                    while True:
                        slow.send(message)

        sender = threading.Thread(target=flood, daemon=True)
        sender.start()
        wait_for(lambda: server.metrics.counts()["clients_dropped"] == 1, 30)
        assert "client 1: dropped: does not read" in caplog.text
        assert good.infer({**OBSERVATION, "plan": PLAN})["status"] == "ok"
        sender.join(10)


def test_a_client_that_vanishes_while_it_is_planned_for_leaves_its_place(engine):
    thinker = Thinker()
    settings = Settings(port=0, max_clients=1)
    with serving(engine, settings, thinker) as server:
        raw = connect(address(server))
        raw.recv()
        raw.send(wire.pack({**SEEN, "prompt": "lift", "request": "plan"}))
        wait_for(lambda: thinker.asked)
        raw.socket.close()
        wait_for(lambda: "bridgeact_connected 0" in page(server, "/metrics"))
        thinker.may.set()
        with Client(address(server)) as client:
            assert client.infer({**OBSERVATION, "plan": PLAN})["status"] in ("ok", "late")


def test_the_client_needs_no_jax():
    code = """
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                allowed = {"numpy", "msgpack", "websockets", "bridgeact_jax"}
                if name.split(".")[0] not in allowed | set(sys.stdlib_module_names):
                    raise ImportError(f"{name} is blocked")
        sys.meta_path.insert(0, Blocked())
        from bridgeact_jax.serving import chunks, client, limiter, wire
        assert "jax" not in sys.modules and "scipy" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_nobody_there_is_said_in_one_line():
    with pytest.raises(ServerError, match="ws://127.0.0.1:9: no server answers") as error:
        Client("ws://127.0.0.1:9", timeout=2)
    assert error.value.lost and "\n" not in str(error.value)
