"""Who takes part in fuzz_serve.py: the server's process, clients that behave, and an attacker."""

import collections
import itertools
import os
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import websockets
from websockets.sync.client import connect

from bridgeact_jax.serving.client import Client, ServerError

DOWN = np.float32([0, 1, 0, 0])
HOME = np.float32([0.5, 0.0, 0.3])
OBSERVATION = {
    "position": HOME,
    "rotation": DOWN,
    "gripper_width": 0.9,
    "cloud": np.random.default_rng(0).normal(HOME, 0.1, (1024, 3)).astype(np.float32),
    "plan": {
        "position": np.float32([[0.5, 0.05, 0.2], [0.5, 0.1, 0.1]]),
        "rotation": np.tile(DOWN, (2, 1)),
        "gripper": np.float32([1, 0]),
    },
}
DEPTH = {
    **{key: OBSERVATION[key] for key in ("position", "rotation", "plan")},
    "depth": np.full((48, 64), 500, np.uint16),
    "intrinsics": np.array([[60, 0, 32], [0, 60, 24], [0, 0, 1.0]]),
    "camera_pose": np.array([[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1.0]]),
    "prompt": "lift the cube",
    "request": "act",
}
PATIENCE = 20.0  # seconds for an answer


class Process:
    """The server in a process of its own."""

    def __init__(self, checkpoint: str):
        words = ["serve", f"--checkpoint={checkpoint}", "--port=0", "--max_clients=80"]
        words += ["--deadline=2", "--write_timeout=1", "--max_message_mb=1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bridgeact_jax.cli", *words],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        for line in self._process.stdout:
            if line.startswith("serving on"):
                self.port = int(line.rsplit(":", 1)[1])
                return
        sys.exit("the server did not start")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def state(self) -> dict:
        """Resident memory in MB, open files, threads; connected clients."""
        root = f"/proc/{self._process.pid}"
        with open(f"{root}/statm") as file:
            pages = int(file.read().split()[1])
        return {
            "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
            "files": len(os.listdir(f"{root}/fd")),
            "threads": len(os.listdir(f"{root}/task")),
            "connected": int(self.metrics()["bridgeact_connected"]),
        }

    def metrics(self) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            text = page.read().decode()
        return {
            line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if not line.startswith("#")
        }

    def end(self) -> int:
        self._process.terminate()
        return self._process.wait(20)


class Good(threading.Thread):
    """A client that does everything right, at 10 Hz, until it is told to end."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self._client, self._end, self._lock = Client(url), threading.Event(), threading.Lock()
        self._times, self._statuses, self.faults = [], collections.Counter(), 0
        self.start()

    def run(self) -> None:
        number = 0
        while not self._end.is_set():
            begun = time.monotonic()
            try:
                answer = self._client.infer({**OBSERVATION, "time": 0.1 * number})
                status, fine = answer["status"], answer["status"] != "ok"
                fine = status == "late" or np.isfinite(answer["actions"]).all()
            except ServerError as error:
                status, fine = f"error: {error}", False
            with self._lock:
                self._times.append(time.monotonic() - begun)
                self._statuses[status] += 1
                self.faults += not fine
            if not fine:
                return
            number += 1
            self._end.wait(max(0.0, 0.1 - (time.monotonic() - begun)))

    def report(self) -> dict:
        """What it was answered since the last report, and how fast (ms)."""
        with self._lock:
            times, statuses = self._times, dict(self._statuses)
            self._times, self._statuses = [], collections.Counter()
        if times:
            p50, p95 = 1e3 * np.quantile(times, [0.5, 0.95])
            statuses |= {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}
        return statuses

    def end(self) -> None:
        self._end.set()
        self.join()
        self._client.close()


class Attacker:
    """Sends what it is told over some connections in turn, made anew where they were closed.

    Several, since the server reads only so many messages a second from each.
    """

    def __init__(self, url: str, count: int = 16):
        self._url, self._connections = url, [None] * count
        self._turns = itertools.cycle(range(count))
        self.outcomes = collections.Counter()

    def send(self, frame: bytes | str) -> None:
        """Send a frame; counts how it was answered."""
        turn = next(self._turns)
        for fresh in (False, True):  # an error may have closed the connection meanwhile
            connection = self._connections[turn]
            if connection is None:
                connection = self._connections[turn] = connect(
                    self._url, compression=None, max_size=None, ping_interval=None, proxy=None,
                    legacy=True,
                )  # fmt: skip
                connection.recv()
            try:
                connection.send(frame)
                answer = connection.recv(timeout=PATIENCE)
            except TimeoutError:
                self.outcomes["silence"] += 1
                connection.close()
                self._connections[turn] = None
                return
            except websockets.ConnectionClosed:
                self._connections[turn] = None
                self.outcomes["closed"] += fresh
            else:
                self.outcomes["error" if isinstance(answer, str) else "answer"] += 1
                return

    def leave(self) -> None:
        for connection in self._connections:
            if connection is not None:
                connection.close()
