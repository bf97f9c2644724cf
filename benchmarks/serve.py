"""Latency of `bridgeact serve`, from an observation in a client's memory to its actions.

    JAX_PLATFORMS=cpu python benchmarks/serve.py [--checkpoint=W | --crop=128,1024] [--clients=1,8]
        [--seconds=30] [--hz=10] [--points=1024]

The server runs in a process of its own, on the same machine. Each client sends, at 10 Hz, a cloud
of `--points` points; no two are in step. Without `--checkpoint` the expert is one of size S with
random weights, whose crop has `--crop` points: its answers are worth nothing, their latency is the
same. Two rhythms: `every` samples a chunk for each observation (its client sends no time), `fourth`
goes on with the rows of a chunk as evaluation does. One line of JSON for each: answers a second and
client, those that were late, the round trip at p50, p95 and p99, and the same for the parts as the
server measures them, with the device waited for; all in ms.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import numpy as np

from bridgeact_jax.serving.client import Client

HOME, DOWN = np.float32([0.5, 0.0, 0.3]), np.float32([0, 1, 0, 0])
PLAN = {
    "position": np.float32([[0.5, 0.05, 0.2], [0.5, 0.1, 0.1]]),
    "rotation": np.tile(DOWN, (2, 1)),
    "gripper": np.float32([1, 0]),
}
PARTS = ("decode", "wait", "track", "crop", "sample", "limit")
QUANTILES = (0.5, 0.95, 0.99)
WARM_UP = 3.0  # seconds that are not counted


def random_expert(path: pathlib.Path, crop: int) -> pathlib.Path:
    """An exported expert of size S with random weights that sees clouds."""
    import jax

    from bridgeact_jax.models.action_expert import ActionExpert, example_inputs
    from bridgeact_jax.models.normalizer import identity
    from bridgeact_jax.training import exported
    from bridgeact_jax.training.config import base_config, expert_config

    config = base_config("S")
    config.use_cloud, config.model.points = True, crop
    model = expert_config(config)
    init = jax.jit(ActionExpert(model).init)
    params = init(jax.random.key(0), *example_inputs(model))["params"]
    weights = exported.weights_bytes(exported.tensors_of(params, identity(), "float32"))
    path.mkdir()
    (path / exported.WEIGHTS).write_bytes(weights)
    origin = exported.Origin(config, {}, 0, {})
    (path / exported.CONFIG).write_text(exported.config_text(origin, "float32", weights))
    return path


def started(checkpoint: str) -> tuple[subprocess.Popen, int]:
    """A server in a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bridgeact_jax.cli", "serve", f"--checkpoint={checkpoint}",
         "--port=0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("serving on"):
            return process, int(line.rsplit(":", 1)[1])
    sys.exit("the server did not start")


def ask(url: str, options: argparse.Namespace, timed: bool, seed: int, rows: list) -> None:
    """One client; appends (seconds of the round trip, answer) to `rows`."""
    rng, period = np.random.default_rng(seed), 1 / options.hz
    clouds = rng.normal(HOME, 0.1, (16, options.points, 3)).astype(np.float32)
    with Client(url) as client:
        time.sleep(random.Random(seed).uniform(0, period))
        begun = due = time.monotonic()
        number = 0
        while due < begun + WARM_UP + options.seconds:
            observation = {
                "position": HOME, "rotation": DOWN, "gripper_width": 0.9, "plan": PLAN,
                "cloud": clouds[number % len(clouds)],
            }  # fmt: skip
            if timed:
                observation["time"] = number * 0.1
            start = time.perf_counter()
            answer = client.infer(observation)
            taken = time.perf_counter() - start
            if due >= begun + WARM_UP:
                rows.append((taken, answer))
            number += 1
            due += period
            time.sleep(max(0.0, due - time.monotonic()))


def measure(port: int, clients: int, timed: bool, options: argparse.Namespace) -> dict:
    """The figures of some clients at once."""
    rows = []
    threads = [
        threading.Thread(target=ask, args=(f"ws://127.0.0.1:{port}", options, timed, i, rows))
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [answer for _, answer in rows if answer["status"] == "ok"]
    parts = {
        part: quantiles([answer["policy_timing"].get(f"{part}_ms") for answer in answers])
        for part in PARTS
    }
    return {
        "clients": clients,
        "chunk": "fourth" if timed else "every",
        "hz": round(len(answers) / clients / options.seconds, 2),
        "late": sum(answer["status"] == "late" for _, answer in rows),
        "round_trip": quantiles([1e3 * taken for taken, _ in rows]),
        **parts,
    }


def quantiles(values: list[float | None]) -> list[float]:
    """At p50, p95 and p99, of those that are not None."""
    return np.quantile([x for x in values if x is not None], QUANTILES).round(2).tolist()


def encode_times(port: int) -> list[float]:
    """Quantiles of the encoding of all answers so far, which no answer can say of itself; ms."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    seconds = [float(line.split()[1]) for line in lines if 'part="encode"' in line]
    return [round(1e3 * value, 3) for value in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint")
    parser.add_argument("--crop", default="128,1024")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--points", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        experts = {"as trained": options.checkpoint}
        if options.checkpoint is None:
            experts = {
                int(crop): random_expert(pathlib.Path(scratch, crop), int(crop))
                for crop in options.crop.split(",")
            }
        for crop, path in experts.items():
            process, port = started(path)
            for clients in map(int, options.clients.split(",")):
                for timed in (False, True):
                    figures = measure(port, clients, timed, options)
                    print(json.dumps({"expert_points": crop, **figures}), flush=True)
            print(json.dumps({"expert_points": crop, "encode": encode_times(port)}), flush=True)
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
