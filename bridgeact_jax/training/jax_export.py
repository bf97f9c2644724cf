"""The sampler of a checkpoint as a serialised function, to run where only JAX is installed.

    function = jax.export.deserialize(open("expert.cpu.jaxexport", "rb").read())
    tensors = safetensors.flax.load_file("model.safetensors")
    chunks = function.call(tensors, proprio, window, focus, points, point_mask, keys)

The weights are an argument, so that a file is small and one `model.safetensors` serves all.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from bridgeact_jax.models.action_expert import example_inputs, sample_chunks
from bridgeact_jax.models.observation import Observation
from bridgeact_jax.training.config import expert_config
from bridgeact_jax.training.exported import expert_of

PLATFORMS = ("cpu", "cuda", "tpu")


def make_sampler(config: ml_collections.ConfigDict):
    """`(tensors, proprio, window, focus, points, point_mask, keys) -> (B, H, 10)`, a pure function.

    tensors: those of `model.safetensors`, by name. keys: (B, 2) uint32, the data of PRNG keys, one
    a row. The rest are the parts of `models.observation.Observation`, batched; the result is that
    of `sample_chunks`: metres, 6D rotation, gripper, relative to the current pose.
    """
    model = expert_config(config)

    def sample(tensors, proprio, window, focus, points, point_mask, keys):
        return sample_chunks(
            model,
            *expert_of(tensors),
            Observation(proprio, window, focus, points, point_mask),
            jax.random.wrap_key_data(keys, impl="threefry2x32"),
            use_cloud=config.use_cloud,
            use_guidance=config.dropout.guidance < 1,
        )

    return sample


def serialise(
    config: ml_collections.ConfigDict, tensors: dict[str, np.ndarray], platform: str
) -> bytes:
    """The sampler for `platform`, which need not be here, for any batch size."""
    (batch,) = jax.export.symbolic_shape("batch")

    def shape(value, first):
        return jax.ShapeDtypeStruct((first, *value.shape[1:]), value.dtype)

    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tensors.items()}
    observation, *_ = jax.eval_shape(lambda: example_inputs(expert_config(config)))
    parts = [shape(part, batch) for part in observation]
    keys = jax.ShapeDtypeStruct((batch, 2), jnp.uint32)
    sample = jax.jit(make_sampler(config))
    function = jax.export.export(sample, platforms=[platform])(weights, *parts, keys)
    return bytes(function.serialize())
