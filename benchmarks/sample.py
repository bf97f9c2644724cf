"""Latency of sampling an action chunk: batch 1, in as many DDIM steps as the policies take.

    JAX_PLATFORMS=cpu python benchmarks/sample.py [--setting=S,B,peer,frames] [--calls=300]

Timed from an observation in the host's memory to the chunk back in it, with the device waited for:
the cloud's encoding and the denoising. Settings: the shipped sizes S, B and L with their
crop of 128 points, and `peer`, `frames`: the layer widths of 3D Diffusion Policy "simple" at
horizon 16 with 1024 and 2048 points (benchmarks/train.py). One line of JSON each, times in ms.
"""

import argparse
import functools
import json
import math
import time

import jax
import numpy as np

from bridgeact_jax.models.action_expert import (
    ActionExpert,
    ExpertConfig,
    example_inputs,
    sample_chunks,
)
from bridgeact_jax.models.normalizer import identity
from bridgeact_jax.training.config import SIZES

PEER = {"widths": (128, 256, 384), "condition": 256, "point_widths": (64, 128, 256), "horizon": 16}
SETTINGS = {**SIZES, "peer": {**PEER, "points": 1024}, "frames": {**PEER, "points": 2048}}


def measure(name: str, calls: int) -> dict:
    """Times `calls` calls after a few that are not counted."""
    config = ExpertConfig(**SETTINGS[name])
    inputs = example_inputs(config)
    params = jax.jit(ActionExpert(config).init)(jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)
    observation = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(x.dtype) if x.dtype != bool else np.ones_like(x),
        jax.device_get(inputs[0]),
    )
    sample = jax.jit(functools.partial(sample_chunks, config, use_cloud=True))
    keys = jax.random.split(jax.random.key(1), calls + 5)
    normalizer, taken = identity(), []
    for i in range(calls + 5):
        key = jax.block_until_ready(keys[i : i + 1])
        start = time.perf_counter()
        chunk = jax.device_get(jax.block_until_ready(sample(params, normalizer, observation, key)))
        taken.append(1e3 * (time.perf_counter() - start))
    assert np.isfinite(chunk).all()
    median, slow = np.percentile(taken[5:], [50, 95])
    return {
        "setting": name,
        "p50_ms": round(float(median), 2),
        "p95_ms": round(float(slow), 2),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "points": config.points,
        "horizon": config.horizon,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--setting", default="S,B,peer,frames")
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    for name in options.setting.split(","):
        print(json.dumps(measure(name, options.calls)), flush=True)


if __name__ == "__main__":
    main()
