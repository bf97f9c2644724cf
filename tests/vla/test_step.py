"""Batches, losses and what is frozen."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.training.mesh import make_mesh, replicated
from bridgeact_jax.training.stream import stream
from bridgeact_jax.vla.batches import Sampler
from bridgeact_jax.vla.folders import read_imagetext, read_robot
from bridgeact_jax.vla.learner import state_sharding
from bridgeact_jax.vla.model import ChatVla
from bridgeact_jax.vla.settings import vla_config
from bridgeact_jax.vla.step import (
    count,
    draw,
    figures_of,
    initial_state,
    learns,
    losses,
    make_train_step,
)
from bridgeact_jax.vla.tokenizer import ANSWER, END, START, encode
from tests.devices import emulated
from tests.vla.tiny import random_params, tiny, tiny_config, write_imagetext, write_robot

SMALL = {"layers": 1, "head_layers": 2}
SCALED = Normalizer(jnp.arange(1.0, 11.0) / 10, jnp.ones(10))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("folders")
    return read_imagetext(write_imagetext(path / "imagetext")), read_robot(
        write_robot(path / "robot")
    )


def sampler_of(folders, share=0.75) -> Sampler:
    return Sampler(folders[:1], folders[1:], tiny(), share)


def test_a_batch_is_one_to_three_and_a_function_of_its_step(folders):
    sampler = sampler_of(folders)
    rows = [sampler.rows(seed, step, 64) for seed, step in ((0, 7), (0, 7), (0, 8), (1, 7))]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2]) and not np.array_equal(rows[0], rows[3])
    for part in np.split(rows[0], 4):  # on every device
        assert sampler.gather(part).robot.sum() == 12
    seen = sampler.rows(0, 0, 4000)
    assert set(seen) == set(range(12 + 5 + 2))  # questions, and frames that have a next one
    second_half = stream(sampler, seed=0, batch_size=64, first_step=7, shard=1, num_shards=2)
    for step in (7, 8):
        own = sampler.gather(sampler.rows(0, step, 64)[32:])
        jax.tree.map(np.testing.assert_array_equal, next(second_half), own)


def test_samples_are_gathered_as_a_naive_loop_would(folders):
    imagetext, robot = folders
    sampler, horizon = sampler_of(folders), tiny().horizon
    frames = [
        (episode, frame)
        for episode in robot.episodes if episode["split"] == "train"
        for frame in range(episode["first"], episode["first"] + episode["length"] - 1)
    ]  # fmt: skip
    batch = sampler.gather(np.arange(12 + len(frames)))
    names, numbers, _ = sampler.locate(np.arange(12 + len(frames)))
    for row in range(len(batch.robot)):
        one = jax.tree.map(lambda x, row=row: x[row], batch)
        assert one.robot == (row >= 12) == (names[row] == "robot")
        if not one.robot:
            asked, said, shown = imagetext.questions[row], imagetext.answers[row], row
            assert not one.future_mask.any() and numbers[row] == row
            np.testing.assert_array_equal(one.pictures, imagetext.pictures[shown])
        else:
            episode, frame = frames[row - 12]
            asked, said, first = episode["instruction"], episode["reasoning"], episode["first"]
            last = first + episode["length"] - 1
            assert numbers[row] == frame
            np.testing.assert_array_equal(one.pictures, robot.pictures[frame])
            for back in range(3):
                then = max(frame - back, first)
                pose = [*robot.position[then], *robot.rotation[then]]
                np.testing.assert_array_equal(one.past[2 - back], pose)
            for ahead in range(horizon):
                then = min(frame + 1 + ahead, last)
                assert one.future_mask[ahead] == (frame + 1 + ahead <= last)
                pose = [*robot.position[then], *robot.rotation[then]]
                np.testing.assert_array_equal(one.future[ahead, :7], pose)
                sent = min(frame + ahead, last)  # on the way there
                assert one.future[ahead, 7] == robot.gripper[sent]
            assert one.command == robot.gripper[max(frame - 1, first)]
            assert one.gripper_width == robot.gripper_width[frame]
        tokens = [START, *encode(asked), ANSWER, *encode(said), END]
        assert list(one.tokens[: one.length]) == tokens and not one.tokens[one.length :].any()
        assert one.prompt_length == len(encode(asked)) + 2


def test_what_is_held_out_is_never_learned_from(folders):
    training, held_out = sampler_of(folders).split(0.3, seed=1)
    learned, judged = (set(s.rows(0, 0, 2000)) for s in (training, held_out))
    assert not learned & judged and learned | judged == set(range(19))
    assert len([row for row in judged if row < 12]) == 4
    judged = {row for row in judged if row >= 12}
    assert judged in ({12, 13, 14, 15, 16}, {17, 18})  # a whole episode
    same, nothing = sampler_of(folders).split(0.0, seed=1)
    assert nothing is None and len(set(same.rows(0, 0, 2000))) == 19


@pytest.fixture(scope="module")
def setting(folders):
    """(config, model, params, draws, samples)."""
    config = tiny_config()
    config.model.update(SMALL)
    model = vla_config(config)
    samples = sampler_of(folders).gather(np.array([0, 12, 16, 18, 5, 13, 17, 14]))
    draws = jax.device_get(draw(jax.random.key(0), 8, model, config))
    return config, model, random_params(model), draws, samples


def test_each_loss_is_over_its_own_samples_alone(setting):
    """Against a naive float64 loop; what does not count may be anything."""
    config, model, params, draws, samples = setting
    score = jax.jit(lambda params, samples: losses(params, SCALED, draws, samples, model, config))
    sums = score(params, samples)
    counts = jax.device_get(count(samples, config))
    assert counts.action == 2 * 10 * samples.future_mask.sum()

    features, _ = jax.jit(
        lambda: ChatVla(model).apply(
            {"params": params}, samples.pictures, samples.tokens, samples.robot, method="read"
        )
    )()
    table = np.float64(params["vlm"]["table"]["embedding"])
    expected = {True: [0.0, 0, 0], False: [0.0, 0, 0]}
    for row, robot in enumerate(samples.robot):
        for place in range(samples.prompt_length[row], samples.length[row]):
            logits = table @ np.float64(features[row, model.patches + place - 1])
            truth = samples.tokens[row, place]
            spread = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
            kind = expected[bool(robot)]
            kind[0] += spread - logits[truth]
            kind[1] += logits.argmax() == truth
            kind[2] += 1
    found = {
        True: (sums.reasoning, sums.reasoning_right, counts.reasoning),
        False: (sums.imagetext, sums.imagetext_right, counts.imagetext),
    }
    for kind, values in expected.items():
        np.testing.assert_allclose(found[kind], values, rtol=1e-4)

    silent = jax.tree.map(np.copy, params)  # whose head says zero: the error is the truth itself
    silent["head"]["last"]["out"] = jax.tree.map(np.zeros_like, params["head"]["last"]["out"])
    squared, metres = 0.0, 0.0
    for row, ahead in np.argwhere(samples.future_mask & samples.robot[:, None]):
        now, then = np.float64(samples.past[row, -1]), np.float64(samples.future[row, ahead])
        turn = turned(then[3:7]) * turned(now[3:]).inv()
        sixd = turn.as_matrix()[:, :2].T.ravel()
        chunk = np.concatenate([then[:3] - now[:3], sixd, [2 * then[7] - 1]])
        squared += 2 * np.sum((chunk / np.float64(SCALED.scale)) ** 2)
        metres += 2 * np.linalg.norm(chunk[:3])
    other = samples._replace(future=samples.future.copy(), past=samples.past.copy())
    other.past[~samples.robot, :, :3] += 7.0
    other.future[~samples.future_mask] += 7.0  # beyond the end, and all of image-text
    for one in (samples, other):
        found = score(silent, one)
        np.testing.assert_allclose([found.action, found.distance], [squared, metres], rtol=1e-4)

    figures = figures_of(sums, counts, config)
    parts = [figures[f"loss/{name}"] for name in ("action", "reasoning", "imagetext")]
    np.testing.assert_allclose(figures["loss"], sum(parts), rtol=1e-6)


def turned(wxyz: np.ndarray) -> Rotation:
    return Rotation.from_quat(wxyz, scalar_first=True)


def run_steps(config, params, samples, mesh):
    """The state before and after two steps on a mesh, of which the first has no learning rate."""
    model = vla_config(config)
    make = jax.jit(lambda params: initial_state(config, params, SCALED))
    state = make(params)
    before = jax.device_get(state)
    shardings = state_sharding(mesh, state)
    state = jax.device_put(state, shardings)
    step = jax.jit(
        make_train_step(model, config, mesh), out_shardings=(shardings, replicated(mesh))
    )
    for _ in range(2):
        state, figures = step(state, samples)
        assert figures["finite"]
    return before, jax.device_get(state), jax.device_get(figures)


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["head", "experts"])
def test_frozen_means_frozen(trained, setting):
    """To the last byte, in parameters and averages; no moment is kept of them."""
    config, _, params, _, samples = setting
    config = config.copy_and_resolve_references()
    config.trained = trained
    zero = params["vlm"]["blocks_0"]["mixed"]["kernel"].copy()
    zero[0, :4] = -0.0
    params["vlm"]["blocks_0"]["mixed"]["kernel"] = zero
    before, after, _ = run_steps(config, params, samples, make_mesh(1, name="expert"))
    for name in ("params", "ema"):
        changed = {}
        old, new = (
            jax.tree_util.tree_leaves_with_path(getattr(state, name)) for state in (before, after)
        )
        for (path, x), (_, y) in zip(old, new, strict=True):
            keys = tuple(key.key for key in path)
            changed[keys] = x.tobytes() != y.tobytes()
        assert changed == {path: learns(path, trained) for path in changed}, name
        assert any(changed.values()) and not all(changed.values())
    moments = len(jax.tree.leaves(after.opt_state[1][0].mu))
    assert moments == sum(changed.values())


def check_sharded(folder: str) -> None:
    """On four devices, two of them along the experts, the step is the one of a single device."""
    config = tiny_config(batch_size=8)
    config.model.update(SMALL)
    config.optimizer.clip_norm = 1e9
    params = random_params(vla_config(config))
    folders = read_imagetext(f"{folder}/imagetext"), read_robot(f"{folder}/robot")
    samples = sampler_of(folders).gather(np.array([0, 12, 16, 18, 5, 13, 17, 14]))
    _, one, figures = run_steps(
        config, params, samples, make_mesh(1, jax.devices()[:1], name="expert")
    )
    config.accumulate = 2
    mesh = make_mesh(2, name="expert")
    assert mesh.shape == {"data": 2, "expert": 2}
    state = jax.eval_shape(lambda: initial_state(config, params, SCALED))
    shardings = state_sharding(mesh, state)
    for part in (shardings.params, shardings.ema, shardings.opt_state[1][0].nu):
        assert tuple(part["vlm"]["blocks_0"]["mlp"]["inner"].spec) == ("expert",)
        assert tuple(part["vlm"]["blocks_0"]["mixed"]["kernel"].spec) == ()
    _, four, same = run_steps(config, params, samples, mesh)
    for name, value in figures.items():
        np.testing.assert_allclose(same[name], value, rtol=1e-4, err_msg=name)
    moment = [state.opt_state[1][0].mu for state in (one, four)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6), *moment)


@pytest.mark.slow
def test_sharded_experts_learn_what_one_device_learns(folders):
    line = f"from tests.vla.test_step import *; check_sharded({str(folders[0].path.parent)!r})"
    result = subprocess.run(
        [sys.executable, "-c", line],
        env={**os.environ, **emulated(4)}, capture_output=True, text=True,
    )
    assert result.returncode == 0, result.stderr
