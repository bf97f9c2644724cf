"""Held-out episodes, what is measured on them, and the checkpoint they keep."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.models.action_expert import sample_chunks
from bridgeact_jax.training.checkpoint import Checkpoints
from bridgeact_jax.training.config import base_config, expert_config
from bridgeact_jax.training.example import make_example
from bridgeact_jax.training.state import param_shapes
from bridgeact_jax.training.step import Sums
from bridgeact_jax.training.validation import STREAM, Validation, held_out, make_score
from tests.parameters import drawn
from tests.training.conftest import figures, run
from tests.training.test_loader import mixed, random_trajectories, three_stores


def stores_of(*episodes: int):
    """A sampler over stores of so many episodes, of 5 to 30 frames."""
    rng = np.random.default_rng(0)
    stores = [random_trajectories(i, rng.integers(5, 30, n)) for i, n in enumerate(episodes)]
    return mixed(stores, np.full(len(stores), 1 / len(stores)))


@pytest.mark.parametrize("share, expected", [(0.0, (0, 0, 0)), (0.1, (5, 1, 0)), (0.9, (45, 9, 2))])
def test_each_store_gives_its_share_but_never_everything(share, expected):
    sampler = stores_of(50, 10, 3)
    kept = held_out(sampler, share, seed=1)
    parts = np.split(kept, sampler.first_episode[1:-1])
    assert tuple(part.sum() for part in parts) == expected
    np.testing.assert_array_equal(kept, held_out(sampler, share, seed=1))
    if share:
        assert not np.array_equal(kept, held_out(sampler, share, seed=2))


def test_training_and_validation_never_share_an_episode():
    sampler = stores_of(50, 10, 3)
    kept = held_out(sampler, 0.2, seed=0)
    for episodes, part in ((~kept, sampler.only(~kept)), (kept, sampler.only(kept))):
        rows = np.concatenate([part.rows(0, step, 4096) for step in range(4)])
        episode = np.searchsorted(np.cumsum(sampler.lengths), rows, side="right")
        assert episodes[episode].all() and len(np.unique(episode)) == episodes.sum()


def test_what_is_left_keeps_its_proportions():
    stores = three_stores()  # the third is one episode, which is never held out
    sampler = mixed(stores)
    kept = held_out(sampler, 0.3, seed=0)
    part = sampler.only(kept)
    np.testing.assert_allclose(part._probability, np.array([0.62, 0.05, 0.0]) / 0.67)
    store = np.searchsorted(sampler._ends, part.rows(0, 0, 20_000), side="right")
    shares = np.bincount(store, minlength=3) / len(store)
    np.testing.assert_allclose(shares, part._probability, atol=0.02)


def test_losses_are_means_over_all_and_over_each_dataset():
    columns = [6.0, 2.0, 0.0], [3, 4, 0], [1.0, 2.0, 0.0], [2, 4, 0]
    sums = Sums(*map(jnp.array, columns))
    means = sums.figures(("one", "two", "none"))
    assert means["loss"] == pytest.approx(8 / 7)
    assert means["position_error_mm"] == pytest.approx(500)
    assert means["loss/one"] == 2 and means["loss/two"] == 0.5 and np.isnan(means["loss/none"])
    assert sums.figures(("all",)).keys() == {"loss", "position_error_mm"}


@pytest.mark.slow
def test_the_position_error_is_that_of_sampled_chunks():
    config = base_config()
    config.model.widths, config.model.condition = (8, 16), 16
    config.model.points, config.model.point_widths, config.model.keypoints = 16, (8, 16), 2
    model = expert_config(config)
    sampler = mixed([random_trajectories(0, (40, 30))], [1.0], horizon=8, waypoints=12)
    windows = sampler.gather(sampler.rows(0, 0, 3))
    params = drawn(param_shapes(model))
    normalizer = normalizer_lib.identity()
    score = jax.jit(make_score(model, config))(params, normalizer, windows)

    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), STREAM), 3)
    example_keys, sample_keys = jax.random.split(keys[0], 3), jax.random.split(keys[2], 3)

    @jax.jit
    def one_by_one(example_key, sample_key, window):
        example = make_example(example_key, window, model, config)
        one = jax.tree.map(lambda x: x[None], example.observation)
        keys = sample_key[None]
        return example, sample_chunks(model, params, normalizer, one, keys, use_cloud=False)[0]

    errors = []
    for i in range(3):
        window = jax.tree.map(lambda x: x[i], windows)  # noqa: B023
        example, chunk = jax.device_get(one_by_one(example_keys[i], sample_keys[i], window))
        for h in range(8):
            if windows.future_mask[i, h]:
                errors.append(np.linalg.norm(chunk[h, :3] - example.chunk[h, :3]))
    assert score["position_mm"] == pytest.approx(1e3 * np.mean(errors), rel=1e-3)
    assert np.isfinite(score["loss"])


@pytest.mark.slow
def test_the_best_is_kept_beside_the_latest_and_validation_heeds_a_notice(
    tiny_store, tmp_path, monkeypatch
):
    workdir, judge = tmp_path / "run", Validation.__call__
    words = (
        "pretrain", "--config=configs/demo.py:pretrain", f"--store={tiny_store}",
        f"--workdir={workdir}", "--config.steps=12", "--config.validation.share=0.4",
        "--config.validation.windows=8", "--config.checkpoints_kept=1",
        "--config.profile_steps=(3,4)",
    )  # fmt: skip

    def told(self, state):
        if int(state.step) == 4:
            signal.raise_signal(signal.SIGTERM)
        return judge(self, state)

    with monkeypatch.context() as during:
        during.setattr(Validation, "__call__", told)
        stopped = run(*words, check=False)
    assert stopped.returncode == 143 and "a checkpoint of step 4" in stopped.stderr
    run(*words)
    losses = {row["step"]: row["validation_loss"] for row in figures(workdir)}
    assert sorted(losses) == [2, 4, 6, 8, 10, 12]
    assert all(row["validation_position_mm"] > 0 for row in figures(workdir))
    best = min(losses, key=losses.get)
    kept = {int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {best, 12}
    checkpoints = Checkpoints(epath.Path(workdir))
    assert (checkpoints.best, checkpoints.latest) == (best, 12)
    checkpoints.close()
    assert json.dumps(figures(workdir), allow_nan=False)
    assert list((workdir / "profile").rglob("*.xplane.pb"))
