"""The training stream: a sampler's batches in order, gathered ahead of the step.

A grain dataset over step numbers, so that its position is one integer and every host can take its
slice.
"""

import grain
import numpy as np

from bridgeact_jax.training.learner import Sampler


def stream(
    sampler: Sampler,
    *,
    seed: int,
    batch_size: int,
    first_step: int,
    shard: int = 0,
    num_shards: int = 1,
) -> grain.DatasetIterator:
    """Endless batches from `first_step` on, in order, gathered ahead in two threads.

    Args:
      batch_size: global; each of `num_shards` hosts receives its contiguous slice.
    """
    part = slice(shard * batch_size // num_shards, (shard + 1) * batch_size // num_shards)
    steps = grain.MapDataset.range(first_step, np.iinfo(np.int32).max)
    batches = steps.map(lambda step: sampler.gather(sampler.rows(seed, step, batch_size)[part]))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=3)
    return iter(batches.to_iter_dataset(options))
