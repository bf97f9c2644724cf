"""Training samples a second, beside the parameters and FLOPs of what is trained.

    JAX_PLATFORMS=cpu python benchmarks/train.py [--setting=peer,...] [--seconds=60] [--points=N]

The whole step is timed as training runs it: batches from the stream, transfer, noise, guidance,
projection, crop, gradient, update and EMA. Settings (batch 128, horizon 16 but for the last):

    peer      the layer widths of 3D Diffusion Policy "simple": points 64, 128, 256, U-Net 128, 256,
              384; one cloud of 1024 points a sample
    frames    the same with 2048 points: as many a sample as its two frames of 1024
    sized     as frames, with the U-Net widened to its 7.4M parameters
    fast      a crop of 128 points around the hand instead, as in the shipped configurations
    draws     fast, with 4 noise draws denoised for each encoded observation
    S, B, L   the shipped sizes of stage 1, no clouds, batch 1024 in the shipped horizon

One line of JSON each:

    samples_per_s    of all timed steps; p50 is that of the median step
    parameters       of the expert
    mflops           matrix products of a step, per sample: forward, backward and encoding
    xla_mflops       by the compiler's own analysis, which counts a loop's body once
    gflops_per_s     matrix products done a second
    stall_percent    of the time, waiting for data
    compile_s        seconds
"""

import argparse
import json
import math
import pathlib
import tempfile
import time

import jax
import numpy as np

from bridgeact_jax.datasets.episode import CLOUD_SHAPE, Episode
from bridgeact_jax.datasets.store import StoreWriter
from bridgeact_jax.models.normalizer import identity
from bridgeact_jax.training.aot import trace_step
from bridgeact_jax.training.config import SIZES, base_config, expert_config
from bridgeact_jax.training.costs import matmul_flops
from bridgeact_jax.training.data import open_data
from bridgeact_jax.training.mesh import batch_sharding, make_mesh, state_sharding, to_devices
from bridgeact_jax.training.state import initial_state, state_shapes
from bridgeact_jax.training.stream import stream

PEER = {"widths": (128, 256, 384), "condition": 256, "point_widths": (64, 128, 256), "horizon": 16}
SETTINGS = {
    "peer": {**PEER, "points": 1024},
    "frames": {**PEER, "points": 2048},
    "sized": {**PEER, "points": 2048, "widths": (156, 312, 468)},
    "fast": {**PEER, "points": 128},
    "draws": {**PEER, "points": 128, "noise_draws": 4},
    **{size: {"clouds": False, "batch_size": 1024} for size in SIZES},
}
EPISODES, FRAMES = 32, 60


def write_store(path: pathlib.Path) -> None:
    """Episodes of a hand that closes halfway along a random line, in clouds around it."""
    rng = np.random.default_rng(0)
    along = np.linspace(0, 1, FRAMES)[:, None]
    with StoreWriter(path, with_cloud=True) as writer:
        for _ in range(EPISODES):
            start, end = rng.uniform(-0.2, 0.2, (2, 3))
            episode = Episode(
                time=np.arange(FRAMES) / 10,
                position=(start + along * (end - start)).astype(np.float32),
                rotation=np.tile([1.0, 0, 0, 0], (FRAMES, 1)).astype(np.float32),
                gripper=(np.arange(FRAMES) < FRAMES // 2).astype(np.float32),
                gripper_width=np.full(FRAMES, np.nan, np.float32),
                cloud=rng.uniform(-0.3, 0.3, (FRAMES, *CLOUD_SHAPE)).astype(np.float16),
            )
            writer.append(episode, np.array([0, FRAMES // 2, FRAMES - 1]))
        writer.finish(card="benchmark")


def configuration(name: str, points: int | None):
    """The configuration of a setting."""
    chosen = dict(SETTINGS[name])
    config = base_config(name if name in SIZES else "S")
    config.use_cloud = chosen.pop("clouds", True)
    config.batch_size = chosen.pop("batch_size", 128)
    config.noise_draws = chosen.pop("noise_draws", 1)
    config.model.update(chosen)
    if points is not None:
        config.model.points = points
    return config


def measure(name: str, store: pathlib.Path, seconds: float, points: int | None) -> dict:
    """Times the steps of a setting."""
    config = configuration(name, points)
    model, mesh = expert_config(config), make_mesh(1)
    traced = trace_step(config, mesh)
    flops = matmul_flops(traced.jaxpr.jaxpr)
    start = time.monotonic()
    step = traced.lower().compile()
    compiled = time.monotonic() - start
    shapes = state_shapes(config, model)
    make = jax.jit(
        lambda normalizer: initial_state(config, model, None, normalizer),
        out_shardings=state_sharding(mesh, shapes),
    )
    state = make(identity())
    sampler = open_data(config, model, store=store).sampler
    batches = stream(sampler, seed=0, batch_size=config.batch_size, first_step=0)
    place = batch_sharding(mesh)

    taken, waited, figures = [], 0.0, None
    while len(taken) < 5 or sum(taken) < seconds:
        start = time.monotonic()
        raw = next(batches)
        waited += time.monotonic() - start
        state, figures = step(state, to_devices(raw, place))
        jax.block_until_ready(figures)
        taken.append(time.monotonic() - start)
    assert bool(figures["finite"])
    taken = taken[1:]  # the first waits for the first batch
    rate = config.batch_size * len(taken) / sum(taken)
    return {
        "setting": name,
        "samples_per_s": rate,
        "samples_per_s_p50": config.batch_size / float(np.median(taken)),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params)),
        "mflops": flops / config.batch_size / 1e6,
        "xla_mflops": step.cost_analysis()["flops"] / config.batch_size / 1e6,
        "gflops_per_s": flops / config.batch_size * rate / 1e9,
        "stall_percent": 100 * waited / sum(taken),
        "steps": len(taken),
        "compile_s": compiled,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--setting", default="peer,frames,sized,fast,draws")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--points", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = pathlib.Path(scratch) / "store"
        write_store(store)
        for name in options.setting.split(","):
            line = measure(name, store, options.seconds, options.points)
            line = {k: round(v, 2) if isinstance(v, float) else v for k, v in line.items()}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
