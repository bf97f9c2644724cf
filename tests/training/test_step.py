"""The training step: micro-batches, and updates that are not finite."""

from functools import partial

import jax
import numpy as np
import pytest

from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.models.action_expert import GLANCES, ActionExpert
from bridgeact_jax.training.config import base_config, expert_config
from bridgeact_jax.training.example import make_example
from bridgeact_jax.training.mesh import make_mesh
from bridgeact_jax.training.state import initial_state, param_shapes
from bridgeact_jax.training.step import diffusion_loss, draw, make_train_step
from tests.parameters import drawn
from tests.training.test_loader import random_trajectories


@pytest.fixture(scope="module")
def setting():
    """(config, state, windows) of a tiny expert and 24 windows of random motion."""
    config = base_config()
    config.model.widths, config.model.condition = (8, 16), 16
    config.model.points, config.model.point_widths, config.model.keypoints = 16, (8, 16), 2
    config.batch_size, config.noise_draws, config.optimizer.warmup_steps = 24, 2, 1
    model = expert_config(config)
    sampler = WindowSampler(
        random_trajectories(0, (40, 30)), horizon=8, history=16, waypoints=config.data.waypoints,
        contact_weight=1.0, with_cloud=False,
    )  # fmt: skip
    windows = sampler.gather(sampler.rows(0, 0, 24))
    params = drawn(param_shapes(model))
    make = jax.jit(lambda params: initial_state(config, model, params, normalizer_lib.identity()))
    state = jax.device_get(make(params))
    return config, state._replace(step=np.int32(5)), windows


def step_of(config):
    return jax.jit(make_train_step(expert_config(config), config, make_mesh(1)))


@pytest.mark.parametrize("use_cloud", [False, True])
def test_only_a_run_that_starts_with_clouds_has_an_open_gate(setting, use_cloud):
    config, state, _ = setting
    config = config.copy_and_resolve_references()
    config.use_cloud = use_cloud

    @jax.jit
    def gates(params):  # alone, since all of an initialisation takes long to compile
        first = initial_state(config, expert_config(config), params, state.normalizer)
        return first.params["cloud_gate"], first.ema["cloud_gate"]

    for gate in gates(None):
        assert np.all(gate == (0.1 if use_cloud else 0.0))
    for gate in gates({**state.params, "cloud_gate": np.zeros(16, np.float32)}):
        assert np.all(gate == 0)


@pytest.mark.slow
def test_micro_batches_give_what_the_whole_batch_gives(setting):
    config, state, windows = setting
    whole, figures = step_of(config)(state, windows)
    config = config.copy_and_resolve_references()
    config.accumulate = 4
    parts, same = step_of(config)(state, windows)
    for name, value in figures.items():
        np.testing.assert_allclose(same[name], value, rtol=1e-5, err_msg=name)
    moment = lambda new: new.opt_state[1][0].mu  # noqa: E731  Adam's: the gradient, scaled
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        moment(parts), moment(whole),
    )  # fmt: skip


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing(setting):
    config, state, windows = setting
    windows = windows._replace(future=windows.future.copy())
    windows.future[3, 0, 1] = np.nan
    new, figures = step_of(config)(state, windows)
    assert not figures["finite"] and new.step == 6
    for name in ("params", "ema", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, name), getattr(state, name))


def test_the_error_of_the_focus_is_added_with_its_weight(setting):
    """For guided examples whose cloud is seen, over all glances."""
    config, state, windows = setting
    config = config.copy_and_resolve_references()
    config.use_cloud = True
    model, here = expert_config(config), windows.history[np.arange(24), windows.steps - 1, :3]
    spread = np.random.default_rng(0).normal(scale=0.1, size=(24, model.points, 3))
    windows = windows._replace(cloud=(here[:, None] + spread).astype(np.float32))
    keys = jax.random.split(jax.random.key(0), 24)
    example = jax.jit(jax.vmap(lambda k, w: make_example(k, w, model, config)))(keys, windows)
    draws = jax.jit(lambda: draw(jax.random.key(1), 24, model, config))()
    counted = np.asarray(draws.guided & draws.seen[:, 0])
    assert 0 < counted.sum() < 24

    @jax.jit
    def loss(weight):
        with config.ignore_type():
            config.focus_weight = weight
        rest = draws, example, windows.dataset, state.normalizer, model, config
        return diffusion_loss(state.params, *rest)[0]

    encode = partial(ActionExpert(model).apply, use_cloud=True, method="encode")
    _, found = jax.jit(encode)({"params": state.params}, example.observation, draws.guided)
    assert found.shape == (GLANCES, 24, 3)
    error = (np.float64(found) - np.float64(example.true_focus))[:, counted]
    np.testing.assert_allclose(loss(3.0) - loss(0.0), 3 * np.sum(error**2), rtol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_draws_is_where_sampling_starts(share):
    config = base_config()
    config.first_step_share = share
    model = expert_config(config)
    steps = np.asarray(jax.jit(lambda: draw(jax.random.key(0), 20_000, model, config).step)())
    last = model.train_steps - 1
    expected = share + (1 - share) / model.train_steps
    np.testing.assert_allclose(np.mean(steps == last), expected, atol=0.015)
    if share < 1:
        np.testing.assert_allclose(steps[steps < last].mean(), (last - 1) / 2, rtol=0.03)
