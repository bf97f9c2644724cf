"""What a dataset does not record is not learnt: neither by the loss nor by the normaliser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.training.config import base_config, expert_config
from bridgeact_jax.training.example import make_example
from bridgeact_jax.training.state import param_shapes
from bridgeact_jax.training.step import diffusion_loss, draw
from tests.parameters import drawn
from tests.training.test_loader import random_trajectories

ROTATION, GRIPPER = slice(3, 9), slice(9, 10)
BATCH = 12


@pytest.fixture(scope="module")
def windows():
    """A batch of random motion, all of it recorded."""
    options = base_config().data
    sampler = WindowSampler(
        random_trajectories(0, (40, 30)), horizon=8, history=16, waypoints=options.waypoints,
        contact_weight=1.0, with_cloud=False,
    )  # fmt: skip
    return sampler.gather(sampler.rows(0, 0, BATCH))


@pytest.fixture(scope="module")
def learn():
    """windows -> (figures, gradient of the outputs' bias (10,), example)."""
    config = base_config()
    config.model.widths, config.model.condition = (8, 16), 16
    config.model.points, config.model.point_widths, config.model.keypoints = 16, (8, 16), 2
    model = expert_config(config)
    params = drawn(param_shapes(model))

    @jax.jit
    def run(windows):
        keys = jax.random.split(jax.random.key(1), BATCH)
        example = jax.vmap(lambda k, w: make_example(k, w, model, config))(keys, windows)
        draws = draw(jax.random.key(2), BATCH, model, config)
        gradient, sums = jax.grad(diffusion_loss, has_aux=True)(
            params, draws, example, windows.dataset, normalizer_lib.identity(), model, config
        )
        (bias,) = [leaf for leaf in jax.tree.leaves(gradient) if leaf.shape == (10,)]
        return sums.figures(("",)), bias, example

    return run


def with_recorded(windows, recorded):
    return windows._replace(recorded=np.broadcast_to(recorded, (BATCH, 2)).copy())


@pytest.mark.slow
def test_outputs_of_what_is_not_recorded_get_no_gradient(windows, learn):
    _, everything, _ = learn(windows)
    assert (np.asarray(everything) != 0).all()
    _, no_rotation, _ = learn(with_recorded(windows, (False, True)))
    assert (no_rotation[ROTATION] == 0).all() and (no_rotation[GRIPPER] != 0).all()
    _, no_gripper, _ = learn(with_recorded(windows, (True, False)))
    assert (no_gripper[ROTATION] != 0).all() and (no_gripper[GRIPPER] == 0).all()


@pytest.mark.slow
def test_the_loss_is_the_mean_over_what_is_recorded(windows, learn):
    """Sums over position, rotation and gripper add up over samples, each where it is recorded."""

    def total(rotation, gripper) -> float:
        recorded = np.stack(np.broadcast_arrays(rotation, gripper, np.ones(BATCH, bool))[:2], 1)
        figures, _, example = learn(windows._replace(recorded=recorded))
        inside = np.asarray(windows.future_mask)
        np.testing.assert_array_equal(example.mask[..., :3].all(-1), inside)
        np.testing.assert_array_equal(example.mask[..., ROTATION].all(-1), inside & recorded[:, :1])
        np.testing.assert_array_equal(example.mask[..., 9], inside & recorded[:, 1:])
        errors.append(float(figures["position_error_mm"]))
        return float(figures["loss"]) * np.sum(inside * (3 + recorded @ [6, 1])[:, None])

    errors: list[float] = []
    some = np.arange(BATCH) % 3 == 0
    neither = total(False, False)
    np.testing.assert_allclose(
        total(True, True), total(True, False) + total(False, True) - neither, rtol=1e-5
    )
    np.testing.assert_allclose(
        total(some, False) + total(~some, False), total(True, False) + neither, rtol=1e-5
    )
    np.testing.assert_allclose(
        total(some, ~some), total(some, False) + total(False, ~some) - neither, rtol=1e-5
    )
    assert len(set(errors)) == 1


def test_the_normalizer_ignores_what_is_not_recorded():
    rng = np.random.default_rng(0)
    chunks = rng.uniform(-0.5, 0.5, (20, 8, 10))
    chunks[..., 3:] = 50.0
    mask = np.ones(chunks.shape, bool)
    mask[..., 3:] = False
    fitted = normalizer_lib.fit(jnp.asarray(chunks), jnp.asarray(mask))
    assert (fitted.limit[3:] == 1).all() and (fitted.scale[3:] == 1).all()
    assert np.isfinite(fitted.limit).all() and (fitted.limit[:3] >= 1).all()
