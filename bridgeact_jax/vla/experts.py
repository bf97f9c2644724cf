"""A dynamic mixture of experts in place of a transformer's MLP (ChatVLA-2, section 3.1).

The router is linear; a token goes to the experts of its `top_k` largest logits, weighted by the
softmax over those alone. There is no capacity and no balancing loss: every token gets its experts.

What is computed: the choices of all tokens are laid out grouped by expert, each group padded to
whole blocks of rows, so that a block belongs to one expert and everything is one batched matrix
product of a fixed size. Beside padding that is only the work that is asked for: applying all
experts to all tokens and masking is experts / top_k times as much, and `jax.lax.ragged_dot`, which
on a CPU multiplies each choice with every expert, even `experts` times. On GPUs and TPUs it is the
batched product they are made for. Its price is a copy of the weights for each block of up to
`LARGEST_BLOCK` rows. Rows move by gathers alone, in the backward pass too: scatters are slow.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

LARGEST_BLOCK = 128  # rows
FIXED = {"dynamic": 0, "shared_dynamic": 1, "static_dynamic": 2}  # experts that are not routed to
MLPS = ("dense", *FIXED)

_kernel = nn.initializers.lecun_normal()
_kernels = nn.initializers.lecun_normal(batch_axis=(0,))


class Groups(NamedTuple):
    """Where choices lie when they are grouped by expert, in blocks.

    place (N, K) int32: the row of each token's each choice. source (R,) int32: the choice, counted
    through (N, K), that lies in a row, or -1. expert (R / block,) int32: of each block.
    """

    place: jax.Array
    source: jax.Array
    expert: jax.Array


def route(logits: jax.Array, top_k: int) -> tuple[jax.Array, jax.Array]:
    """Weights (N, K) float32, which sum to one, and the experts (N, K) int32 of logits (N, E)."""
    largest, chosen = jax.lax.top_k(logits.astype(jnp.float32), top_k)
    return jax.nn.softmax(largest), chosen


def group(chosen: jax.Array, experts: int, block: int) -> Groups:
    """Groups of the choices (N, K) among so many `experts`, in blocks of `block` rows."""
    flat = chosen.reshape(-1)
    member = jax.nn.one_hot(flat, experts, dtype=jnp.int32)
    before = jnp.cumsum(member, axis=0) - member
    rank = jnp.sum(before * member, axis=1)
    blocks = -(-jnp.sum(member, axis=0) // block)
    end = jnp.cumsum(blocks)
    place = (end - blocks)[flat] * block + rank
    total = flat.size // block + experts  # what the groups take at most
    source = jnp.full(total * block, -1).at[place].set(jnp.arange(flat.size), unique_indices=True)
    expert = jnp.searchsorted(end, jnp.arange(total), side="right", method="compare_all")
    return Groups(place.reshape(chosen.shape), source, jnp.minimum(expert, experts - 1))


@jax.custom_vjp
def _to_rows(tokens: jax.Array, groups: Groups) -> jax.Array:
    """Rows (R, D) of tokens (N, D); what lies where there is no choice means nothing."""
    return tokens[jnp.maximum(groups.source, 0) // groups.place.shape[1]]


_to_rows.defvjp(
    lambda tokens, groups: (_to_rows(tokens, groups), groups.place),
    lambda place, gradient: (jnp.sum(gradient[place], axis=1), None),
)


@jax.custom_vjp
def _from_rows(rows: jax.Array, groups: Groups) -> jax.Array:
    """Each token's choices (N, K, D) of rows (R, D)."""
    return rows[groups.place]


def _from_rows_backward(source: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    flat = gradient.reshape(-1, gradient.shape[-1])
    return jnp.where(source[:, None] >= 0, flat[source], 0), None


_from_rows.defvjp(
    lambda rows, groups: (_from_rows(rows, groups), groups.source), _from_rows_backward
)


def apply_experts(
    tokens: jax.Array, weights: jax.Array, chosen: jax.Array, inner: jax.Array, outer: jax.Array
) -> jax.Array:
    """Weighted sum (N, D) of what each token's experts make of it.

    Args:
      tokens: (N, D). weights, chosen: (N, K).
      inner: (E, D, F) and outer: (E, F, D), the matrices of the experts.
    """
    experts, width, _ = inner.shape
    share = max(1, chosen.size // experts)
    groups = group(chosen, experts, min(LARGEST_BLOCK, 1 << (share.bit_length() - 1)))
    rows = _to_rows(tokens, groups).reshape(len(groups.expert), -1, width)
    hidden = jax.nn.gelu(jnp.einsum("tbd,tdf->tbf", rows, inner[groups.expert]))
    rows = jnp.einsum("tbf,tfd->tbd", hidden, outer[groups.expert]).reshape(-1, width)
    each = _from_rows(rows, groups)
    return jnp.sum(each * weights[..., None].astype(each.dtype), axis=1)


class DenseMlp(nn.Module):
    """gelu(x W) W' without biases."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, robot: jax.Array) -> jax.Array:
        """(B, n, D) from x (B, n, D); `robot` (B,) changes nothing."""
        width = x.shape[-1]
        inner = self.param("inner", _kernel, (width, self.hidden)).astype(self.dtype)
        outer = self.param("outer", _kernel, (self.hidden, width)).astype(self.dtype)
        return jax.nn.gelu(x.astype(self.dtype) @ inner) @ outer


class ExpertMlp(nn.Module):
    """`experts` MLPs to choose from, and those of `kind` that are not chosen.

    A fixed expert is one of a token's `top_k` whatever the router says, which only weighs it:
    the same for all tokens ("shared_dynamic"), or one for image-text and one for robot samples
    ("static_dynamic"). The work of a token is the same in all kinds. The paper compares with both
    by name alone; what they are is this project's reading.
    """

    kind: str
    experts: int
    top_k: int
    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, robot: jax.Array) -> jax.Array:
        """(B, n, D) from x (B, n, D) and robot (B,) bool, whether a sample is one of a robot."""
        batch, length, width = x.shape
        fixed = FIXED[self.kind]
        total = self.experts + fixed
        inner = self.param("inner", _kernels, (total, width, self.hidden))
        outer = self.param("outer", _kernels, (total, self.hidden, width))
        router = self.param("router", _kernel, (width, self.experts + (fixed > 0)))
        tokens = x.reshape(-1, width)
        logits = tokens.astype(jnp.float32) @ router
        if fixed:
            own = self.experts + (robot if fixed == 2 else jnp.zeros_like(robot))
            own = jnp.repeat(own.astype(jnp.int32), length)[:, None]
            largest, chosen = jax.lax.top_k(logits[:, :-1], self.top_k - 1)
            weights = jax.nn.softmax(jnp.concatenate([largest, logits[:, -1:]], axis=1))
            chosen = jnp.concatenate([chosen, own], axis=1)
        else:
            weights, chosen = route(logits, self.top_k)
        matrices = (jnp.asarray(matrix, self.dtype) for matrix in (inner, outer))
        mixed = apply_experts(tokens.astype(self.dtype), weights, chosen, *matrices)
        return mixed.reshape(batch, length, width)


def experts_from_dense(dense: dict, mixed: dict) -> dict:
    """Parameters of the shapes of `mixed`, every expert a copy of the MLP in `dense`.

    Args:
      dense: parameters of a model with `DenseMlp`s.
      mixed: of the same model with `ExpertMlp`s, as it would start from nothing; its routers are
        kept. What else the models have in common comes from `dense`.
    """
    if not isinstance(mixed, dict):
        return jnp.broadcast_to(dense, mixed.shape)
    return {
        name: mixed[name] if name == "router" else experts_from_dense(dense[name], mixed[name])
        for name in mixed
    }
