"""The mixture of experts: routing against a naive loop, and where it starts from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.vla.experts import (
    FIXED,
    DenseMlp,
    ExpertMlp,
    apply_experts,
    experts_from_dense,
    group,
    route,
)

WIDTH, HIDDEN = 6, 10


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def naive(x, logits, top_k, inner, outer):
    """Token by token, expert by expert, in float64."""
    x, logits, inner, outer = (np.asarray(one, np.float64) for one in (x, logits, inner, outer))
    out = np.zeros_like(x)
    for token, row in enumerate(logits):
        chosen = sorted(range(len(row)), key=lambda e, row=row: -row[e])[:top_k]
        weights = np.exp(row[chosen] - row[chosen].max())
        for weight, expert in zip(weights / weights.sum(), chosen, strict=True):
            out[token] += weight * (gelu(x[token] @ inner[expert]) @ outer[expert])
    return out


def matrices(rng, experts):
    inner = rng.normal(size=(experts, WIDTH, HIDDEN)).astype(np.float32)
    return inner, rng.normal(size=(experts, HIDDEN, WIDTH)).astype(np.float32)


@pytest.mark.parametrize(
    "tokens, experts, top_k, skew",
    [(1, 8, 2, 0), (40, 8, 2, 0), (40, 8, 2, 50), (37, 5, 3, 0), (600, 4, 1, 3), (9, 3, 3, 0)],
)
def test_every_token_gets_its_experts(tokens, experts, top_k, skew):
    """However unevenly they are chosen: with a `skew` nearly all take the same ones."""
    rng = np.random.default_rng(tokens)
    x = rng.normal(size=(tokens, WIDTH)).astype(np.float32)
    logits = (rng.normal(size=(tokens, experts)) + skew * np.arange(experts)).astype(np.float32)
    inner, outer = matrices(rng, experts)

    @jax.jit
    def mix(x, logits, inner, outer):
        return apply_experts(x, *route(logits, top_k), inner, outer)

    out = mix(x, logits, inner, outer)
    np.testing.assert_allclose(out, naive(x, logits, top_k, inner, outer), rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_all_experts_on_all_tokens():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, WIDTH)).astype(np.float32)
    router = rng.normal(size=(WIDTH, 6)).astype(np.float32)
    target = rng.normal(size=x.shape).astype(np.float32)

    def grouped(x, router, inner, outer):
        weights, chosen = route(x @ router, 2)
        return jnp.sum(apply_experts(x, weights, chosen, inner, outer) * target)

    def masked(x, router, inner, outer):
        logits = x @ router
        kept = logits >= jnp.sort(logits)[:, -2:-1]
        weights = jax.nn.softmax(jnp.where(kept, logits, -jnp.inf))
        each = jax.nn.gelu(jnp.einsum("nd,edf->nef", x, inner))
        return jnp.sum(jnp.einsum("ne,nef,efd->nd", weights, each, outer) * target)

    arguments = x, router, *matrices(rng, 6)
    ours, theirs = (jax.jit(jax.grad(f, range(4)))(*arguments) for f in (grouped, masked))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


_group = jax.jit(group, static_argnums=(1, 2))


@given(chosen=st.lists(st.integers(0, 4), min_size=30, max_size=30), block=st.sampled_from([1, 4]))
def test_each_choice_has_a_row_of_its_own_in_a_block_of_its_expert(chosen, block):
    chosen = np.array(chosen, np.int32).reshape(15, 2)
    groups = jax.device_get(_group(chosen, 5, block))
    places = groups.place.reshape(-1)
    assert len(set(places)) == chosen.size
    np.testing.assert_array_equal(groups.expert[places // block], chosen.reshape(-1))
    np.testing.assert_array_equal(groups.source[places], np.arange(chosen.size))
    assert (groups.source >= 0).sum() == chosen.size


@pytest.fixture(scope="module")
def hidden():
    """Features of two samples, of which the second is a robot's."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(2, 7, WIDTH)).astype(np.float32), np.array([False, True])


def mixture(kind: str, hidden) -> tuple[ExpertMlp, dict]:
    mlp = ExpertMlp(kind, 4, 2, HIDDEN, jnp.float32)
    return mlp, jax.jit(mlp.init)(jax.random.key(1), *hidden)["params"]


@pytest.mark.parametrize("kind", FIXED)
def test_experts_start_as_the_dense_mlp(kind, hidden):
    """Their weights sum to one, so the router changes nothing yet."""
    dense = DenseMlp(HIDDEN, jnp.float32)
    params = jax.jit(dense.init)(jax.random.key(0), *hidden)["params"]
    mlp, fresh = mixture(kind, hidden)
    started = experts_from_dense({"mlp": params}, {"mlp": fresh})["mlp"]
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, fresh)
    np.testing.assert_array_equal(started["router"], fresh["router"])
    expected = jax.jit(dense.apply)({"params": params}, *hidden)
    out = jax.jit(mlp.apply)({"params": started}, *hidden)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind, of_first, of_second", [
    ("shared_dynamic", [4], [4]), ("static_dynamic", [4], [5])
])  # fmt: skip
def test_fixed_experts_serve_whom_they_are_meant_for(kind, of_first, of_second, hidden):
    mlp, params = mixture(kind, hidden)
    apply = jax.jit(lambda params: mlp.apply({"params": params}, *hidden))
    before = apply(params)
    for expert in range(4, 4 + FIXED[kind]):
        inner = params["inner"].at[expert].add(1.0)
        after = apply({**params, "inner": inner})
        changed = np.any(np.asarray(before != after), axis=(1, 2))
        served = [expert in of_first, expert in of_second]
        assert list(changed) == served
        assert np.all(np.any(np.asarray(before != after), axis=2)[served])  # every token


def test_a_dynamic_expert_serves_only_who_chose_it(hidden):
    mlp, params = mixture("dynamic", hidden)
    x = hidden[0].reshape(-1, WIDTH)
    _, chosen = jax.jit(route, static_argnums=1)(x @ np.asarray(params["router"]), 2)
    inner = params["inner"].at[1].add(1.0)
    apply = jax.jit(lambda params: mlp.apply({"params": params}, *hidden).reshape(-1, WIDTH))
    before, after = apply(params), apply({**params, "inner": inner})
    np.testing.assert_array_equal(np.any(before != after, axis=1), np.any(chosen == 1, axis=1))
