"""How long sampling a chunk takes."""

import functools
import time

import jax
import numpy as np

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.models.action_expert import example_inputs, sample_chunks
from bridgeact_jax.training.checkpoint import load_expert

CALLS, WARM_UP = 60, 5


def latency(condition: Condition) -> dict[str, float]:
    """Milliseconds to sample a chunk for one arm: `latency_ms`, the median, and `latency_p95_ms`.

    From an observation in the host's memory to the chunk back in it.
    """
    _, model, params, normalizer = load_expert(condition.checkpoint)
    sample = jax.jit(
        functools.partial(
            sample_chunks, model, use_cloud=condition.sees_clouds, **condition.sampler
        )
    )
    observation = jax.device_get(example_inputs(model)[0])
    observation = observation._replace(point_mask=np.ones_like(observation.point_mask))
    keys, taken = jax.random.split(jax.random.key(0), CALLS + WARM_UP), []
    for i in range(CALLS + WARM_UP):
        key = jax.block_until_ready(keys[i : i + 1])
        start = time.perf_counter()
        jax.device_get(sample(params, normalizer, observation, key))
        taken.append(1e3 * (time.perf_counter() - start))
    median, slow = np.percentile(taken[WARM_UP:], [50, 95])
    return {"latency_ms": round(float(median), 2), "latency_p95_ms": round(float(slow), 2)}
