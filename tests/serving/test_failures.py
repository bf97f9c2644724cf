"""What happens when a server, a client or the line between them fails."""

import logging
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import websockets
from websockets.sync.client import connect

from bridgeact_jax.serving import wire
from bridgeact_jax.serving.client import Client, Driver, ServerError
from bridgeact_jax.serving.server import serving
from bridgeact_jax.serving.settings import Settings
from tests.serving.talk import (
    OBSERVATION,
    PATIENT,
    PLAN,
    POSE,
    SEEN,
    Thinker,
    address,
    page,
    wait_for,
)


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
