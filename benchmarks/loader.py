"""Windows a second that the training stream delivers, and what they cost by part.

    python benchmarks/loader.py [--frames=2000000] [--batch=32768] [--seconds=5]

A random store of episodes of 150 frames lies in memory, far larger than the processor's caches;
rows are drawn all over it. One line of JSON for each history (past frames of a window at most):

    stream        through grain with its threads, as training reads; nothing else runs
    gather        the gather alone, in this thread
    rows          drawing the current frames alone
    gb_per_s      what the gather writes
    history, future, plan    share of the gather's time in %, by leaving all but one frame of that
                  column out
"""

import argparse
import json
import time

import jax
import numpy as np

from bridgeact_jax.datasets.loader import AHEAD, WindowSampler
from bridgeact_jax.datasets.trajectories import Trajectories
from bridgeact_jax.training.stream import stream

LENGTH = 150
KEYFRAMES = (0, 30, 60, 90, 120, 149)
SIZES = {"horizon": 8, "history": 96, "waypoints": 12}
HISTORIES = (96, 48, 16)


def random_trajectories(frames: int) -> Trajectories:
    """Episodes of `LENGTH` frames whose numbers mean nothing."""
    rng = np.random.default_rng(0)
    offsets = np.arange(0, frames + 1, LENGTH)
    total = int(offsets[-1])
    return Trajectories(
        offsets=offsets,
        position=rng.random((total, 3), np.float32),
        rotation=rng.random((total, 4), np.float32),
        gripper=(np.arange(total) // 30 % 2).astype(np.float32),
        gripper_width=rng.random(total, np.float32),
        keyframe_offsets=np.arange(len(offsets)) * len(KEYFRAMES),
        keyframe_row=(offsets[:-1, None] + np.array(KEYFRAMES)).ravel(),
    )


def sampler_of(data: Trajectories, **sizes: int) -> WindowSampler:
    """A sampler of windows of these sizes."""
    return WindowSampler(data, contact_weight=3.0, with_cloud=False, **sizes)


def seconds_each(call, seconds: float) -> float:
    """Median seconds of a call, repeated for so long."""
    taken = []
    while len(taken) < 3 or sum(taken) < seconds:
        start = time.perf_counter()
        call(len(taken))
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def streamed(sampler: WindowSampler, batch: int, seconds: float) -> float:
    """Windows a second of a stream, on average: its threads deliver batches in bursts."""
    ahead = stream(sampler, seed=0, batch_size=batch, first_step=0)
    for _ in range(6):  # what has been gathered ahead
        next(ahead)
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(ahead)
        batches += 1
    return batch * batches / (time.perf_counter() - start)


def measure(data: Trajectories, history: int, batch: int, seconds: float) -> dict:
    """Rates for one length of history."""
    sizes = SIZES | {"history": history}
    sampler = sampler_of(data, **sizes)
    rows = [sampler.rows(0, step, batch) for step in range(8)]

    def gather_time(sampler: WindowSampler) -> float:
        return seconds_each(lambda i: sampler.gather(rows[i % len(rows)]), seconds)

    whole = gather_time(sampler)
    least = {"history": 1, "horizon": 1, "waypoints": AHEAD + 1}
    without = {
        name: gather_time(sampler_of(data, **sizes | {name: size})) for name, size in least.items()
    }
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(sampler.gather(rows[0])))
    share = {name: 100 * (1 - taken / whole) for name, taken in without.items()}
    return {
        "history": history,
        "stream_per_s": streamed(sampler, batch, seconds),
        "gather_per_s": batch / whole,
        "rows_per_s": batch / seconds_each(lambda i: sampler.rows(0, i, batch), seconds),
        "bytes_a_window": size / batch,
        "gb_per_s": size / whole / 1e9,
        "history_percent": share["history"],
        "future_percent": share["horizon"],
        "plan_percent": share["waypoints"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=2_000_000)
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    data = random_trajectories(options.frames)
    for history in HISTORIES:
        line = measure(data, history, options.batch, options.seconds)
        print(json.dumps({key: round(value, 1) for key, value in line.items()}), flush=True)


if __name__ == "__main__":
    main()
