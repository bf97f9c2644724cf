"""A small expert of random weights that sees clouds, exported and compiled once."""

import jax
import numpy as np
import pytest

from bridgeact_jax.models.action_expert import ActionExpert, example_inputs
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.serving.engine import Engine
from bridgeact_jax.training import exported
from bridgeact_jax.training.config import base_config, expert_config


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """An exported directory. Its chunks move by centimetres and use the gripper."""
    path = tmp_path_factory.mktemp("exported") / "expert"
    path.mkdir()
    config = base_config()
    config.use_cloud = True
    config.model.update(widths=(16, 32), condition=32, point_widths=(16, 32), points=32)
    model = expert_config(config)
    params = jax.jit(ActionExpert(model).init)(jax.random.key(0), *example_inputs(model))["params"]
    params["cloud_gate"] = np.full_like(params["cloud_gate"], 0.1)
    scale = np.float32([0.02] * 3 + [1.0] * 7)
    tensors = exported.tensors_of(params, Normalizer(scale, np.float32([2.0] * 10)), "float32")
    weights = exported.weights_bytes(tensors)
    (path / exported.WEIGHTS).write_bytes(weights)
    origin = exported.Origin(config, {}, 1, {})
    (path / exported.CONFIG).write_text(exported.config_text(origin, "float32", weights))
    return path


@pytest.fixture(scope="session")
def engine(checkpoint):
    """Compiled."""
    engine = Engine(checkpoint, batches=(1, 8))
    engine.warm()
    return engine
