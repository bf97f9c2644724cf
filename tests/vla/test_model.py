"""The model: what sees what, which layers follow the reasoning, and speaking with a cache."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgeact_jax.models.normalizer import identity
from bridgeact_jax.models.observation import Proprioception
from bridgeact_jax.vla.act import act
from bridgeact_jax.vla.generate import UNSPEAKABLE, generate
from bridgeact_jax.vla.head import STATE, ActionHead, Conditions, arm_state
from bridgeact_jax.vla.model import ChatVla, Texts, initial_params
from bridgeact_jax.vla.settings import base_config, vla_config
from bridgeact_jax.vla.sizes import INJECTIONS
from bridgeact_jax.vla.tokenizer import END, TOKENS
from tests.vla.tiny import pictures, random_params, tiny

MODEL = tiny()
ROBOT = np.array([True, False, True])


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def prompts():
    """Three prompts of 3, 7 and 5 tokens with answers up to 9, 12 and 24."""
    tokens = np.random.default_rng(0).integers(4, 30, (3, MODEL.text_length), np.int32)
    return Texts(tokens, np.array([3, 7, 5], np.int32), np.array([9, 12, 24], np.int32))


_read = jax.jit(partial(ChatVla(MODEL).apply, method=ChatVla.read))


def read(params, shown, tokens, robot=ROBOT):
    return np.asarray(_read({"params": params}, shown, tokens, robot)[0])


def test_the_small_size_is_small():
    model = vla_config(base_config("S"))
    shapes = jax.eval_shape(lambda: initial_params(model, jax.random.key(0)))
    assert 5e6 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 6e6


def test_patches_see_the_picture_and_text_what_came_before(params, prompts):
    shown = pictures(3, MODEL)
    before = read(params, shown, prompts.tokens)

    tokens = prompts.tokens.copy()
    tokens[:, 10] += 1
    changed = np.any(read(params, shown, tokens) != before, axis=(0, 2))
    first = MODEL.patches + 10
    assert not changed[:first].any() and changed[first:].all()

    shown = shown.copy()
    shown[:, -1, -1] ^= 128  # in the last patch
    assert np.any(read(params, shown, prompts.tokens) != before, axis=(0, 2)).all()


def test_a_sample_does_not_depend_on_its_batch(params, prompts):
    shown = pictures(3, MODEL)
    whole = read(params, shown, prompts.tokens)
    for row in range(3):
        one = slice(row, row + 1)
        alone = read(params, shown[one], prompts.tokens[one], ROBOT[one])
        np.testing.assert_allclose(alone[0], whole[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_the_reasoning_modulates_the_layers_it_should(injection):
    """And the observation all others: by which layers' scales and shifts change with either."""
    model = tiny(injection=injection)
    params, layers = random_params(model)["head"], model.head_layers
    expected = {
        "none": [], "all": range(layers + 1), "former": range(layers // 2),
        "latter": range(layers // 2, layers + 1),
    }[injection]  # fmt: skip
    noisy = np.random.default_rng(0).normal(size=(1, model.horizon, 10)).astype(np.float32)

    @jax.jit
    def modulations(conditions):
        """Of each layer, and of the output as of one more."""
        _, seen = ActionHead(model).apply(
            {"params": params}, conditions, noisy, jnp.zeros(1, jnp.int32),
            method=ActionHead.denoise,
            capture_intermediates=lambda module, _: module.name == "modulation",
        )  # fmt: skip
        names = [*(f"layers_{i}" for i in range(layers)), "last"]
        return [seen["intermediates"][name]["modulation"]["__call__"][0] for name in names]

    nothing = Conditions(*np.zeros((2, 1, model.head_width), np.float32))
    before = modulations(nothing)
    for name in Conditions._fields:
        after = modulations(nothing._replace(**{name: np.ones((1, model.head_width), np.float32)}))
        changed = [bool(np.any(a != b)) for a, b in zip(after, before, strict=True)]
        assert changed == [(i in expected) == (name == "reasoned") for i in range(layers + 1)]


def test_what_was_observed_is_picture_and_prompt_and_what_was_reasoned_the_rest(params, prompts):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, MODEL.patches + MODEL.text_length, MODEL.width))
    state = rng.normal(size=(3, STATE)).astype(np.float32)

    @jax.jit
    def condition(features):
        variables = {"params": params}
        return ChatVla(MODEL).apply(variables, features, prompts, state, method=ChatVla.condition)

    before = condition(features)
    for row, (first, last) in enumerate(zip(prompts.prompt_length, prompts.length, strict=True)):
        ends = MODEL.patches + first, MODEL.patches + last
        for place, part in ((0, 0), (ends[0] - 1, 0), (ends[0], 1), (ends[1] - 1, 1), (ends[1], 2)):
            if place == features.shape[1]:
                continue
            changed = features.copy()
            changed[row, place] += 3.0
            after = condition(changed)
            differs = [bool(np.any(a[row] != b[row])) for a, b in zip(after, before, strict=True)]
            assert differs == [part == 0, part == 1]


def greedy(params, shown, texts, robot):
    """Token by token without a cache: the whole sequence is read again for each."""
    tokens, length = texts.tokens.copy(), texts.prompt_length.copy()
    apply = ChatVla(MODEL).apply

    @jax.jit
    def logits_of(tokens):
        variables = {"params": params}
        features, _ = apply(variables, shown, tokens, robot, method=ChatVla.read)
        return apply(variables, features[:, MODEL.patches :], method=ChatVla.logits)

    done = np.zeros(len(tokens), bool)
    while not done.all():
        logits = np.array(logits_of(tokens))
        logits[..., UNSPEAKABLE] = logits[..., len(TOKENS) :] = -np.inf
        for row in np.flatnonzero(~done):
            tokens[row, length[row]] = logits[row, length[row] - 1].argmax()
            length[row] += 1
            said_all = length[row] == tokens.shape[1]
            done[row] = tokens[row, length[row] - 1] == END or said_all
    return tokens, length


def test_speaking_with_a_cache_is_reading_it_all_again(params, prompts):
    """And what stood behind the prompts has no influence."""
    eager = jax.tree.map(np.copy, params)
    eager["vlm"]["table"]["embedding"][END] *= 4  # so that some answers end of themselves
    shown = pictures(3, MODEL)
    expected, length = greedy(eager, shown, prompts, ROBOT)
    assert len(set(length - prompts.prompt_length)) > 1 and length.min() < MODEL.text_length
    keys = jax.random.split(jax.random.key(0), 3)
    spoken = generate(
        MODEL, eager, shown, prompts.tokens, prompts.prompt_length, ROBOT, 0.0, keys
    )
    np.testing.assert_array_equal(spoken.length, length)
    np.testing.assert_array_equal(spoken.prompt_length, prompts.prompt_length)
    said = np.arange(MODEL.text_length) < length[:, None]
    np.testing.assert_array_equal(np.asarray(spoken.tokens)[said], expected[said])


def test_warm_speech_follows_its_keys(params, prompts):
    shown = pictures(3, MODEL)

    def say(temperature, seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        rest = prompts.tokens, prompts.prompt_length, ROBOT, temperature, keys
        return np.asarray(generate(MODEL, params, shown, *rest).tokens)

    np.testing.assert_array_equal(say(2.0, 1), say(2.0, 1))
    assert np.any(say(2.0, 1) != say(2.0, 2))
    np.testing.assert_array_equal(say(0.0, 1), say(0.0, 2))


def test_acting_follows_the_reasoning_and_not_the_batch(params, prompts):
    rng = np.random.default_rng(0)
    rotation = rng.normal(size=(3, 3, 4)).astype(np.float32)
    rotation /= np.linalg.norm(rotation, axis=-1, keepdims=True)
    arm = Proprioception(
        rng.normal(size=(3, 3, 3)).astype(np.float32), rotation, np.ones(3, np.float32),
        np.array([0.5, np.nan, 1.0], np.float32),
    )  # fmt: skip
    shown, keys = pictures(3, MODEL), jax.random.split(jax.random.key(0), 3)
    chunks = act(MODEL, params, identity(), shown, prompts, arm, keys)
    assert chunks.shape == (3, MODEL.horizon, 10) and np.isfinite(chunks).all()

    order = np.array([2, 0, 1])
    inputs = jax.tree.map(lambda x: x[order], (shown, prompts, arm, keys))
    mixed = act(MODEL, params, identity(), *inputs)
    np.testing.assert_allclose(mixed, chunks[order], rtol=1e-3, atol=1e-4)

    tokens = prompts.tokens.copy()
    tokens[:, 8] += 1  # of the reasoning
    other = act(MODEL, params, identity(), shown, prompts._replace(tokens=tokens), arm, keys)
    assert np.all(np.any(np.asarray(other != chunks), axis=(1, 2)))


def test_the_arms_state_is_where_it_is_and_how_it_came_there():
    rng = np.random.default_rng(0)
    position = rng.normal(size=(3, 3)).astype(np.float32)
    still = np.tile(np.array([0, 1, 0, 0], np.float32), (3, 1))
    state = arm_state(Proprioception(position, still, np.float32(1), np.float32(np.nan)))
    assert state.shape == (STATE,)
    np.testing.assert_allclose(state[:3], 10 * position[-1], rtol=1e-6)
    np.testing.assert_allclose(state[3:9], [1, 0, 0, 0, -1, 0], atol=1e-6)
    moved = 10 * (position[:2] - position[-1])
    np.testing.assert_allclose(state[9:27].reshape(2, 9)[:, :3], moved, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state[27:], [1, 0, 0])
