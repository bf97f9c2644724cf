"""The diffusion action head: a DiT with adaLN-zero whose later layers follow the reasoning.

Each layer is modulated by the embedded diffusion step plus, in the plain head, what was observed:
the features of picture and prompt, pooled, and the arm's own state. In the layers that
`VlaConfig.injection` names, what was reasoned stands in the place of what was observed: the
features of the reasoning, pooled, and the arm's state (ChatVLA-2, section 3.2; DiT: Peebles & Xie,
2023; ScaleDP: Zhu et al., 2024).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bridgeact_jax.geometry import rotations
from bridgeact_jax.models.diffusion import embed_step
from bridgeact_jax.models.observation import ACTION_DIM, PAST, UNIT, Proprioception, relative
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.transformer import HIDDEN, attend

STATE = 9 * (PAST + 1) + 3  # numbers of the arm's state


class Conditions(NamedTuple):
    """What a chunk is denoised against, (B, C) float32 each; a part that no layer uses is zero."""

    observed: jax.Array
    reasoned: jax.Array


def arm_state(proprioception: Proprioception) -> jax.Array:
    """(STATE,): the current pose in the base frame, past ones relative to it, and the gripper."""
    here, facing = proprioception.position[-1], proprioception.rotation[-1]
    past = relative(proprioception.position[:-1], proprioception.rotation[:-1], here, facing)
    past = past.at[:, :3].divide(UNIT)
    known = jnp.isfinite(proprioception.gripper_width)
    width = jnp.where(known, proprioception.gripper_width, 0.0)
    gripper = jnp.stack([proprioception.gripper_command, width, known.astype(jnp.float32)])
    pose = here / UNIT, rotations.to_sixd(facing)
    return jnp.concatenate([*pose, past.reshape(-1), gripper])


def follows_reasoning(injection: str, layers: int) -> tuple[bool, ...]:
    """For each of the layers, and last for the output, whether the reasoning modulates it."""
    latter = [layer >= layers // 2 for layer in range(layers + 1)]
    rules = {"none": False, "all": True}
    if injection in rules:
        return (rules[injection],) * (layers + 1)
    return tuple(half == (injection == "latter") for half in latter)


class Pool(nn.Module):
    """Features that learned queries attend to, and the arm's state, as one vector."""

    config: VlaConfig

    @nn.compact
    def __call__(self, features: jax.Array, seen: jax.Array, state: jax.Array) -> jax.Array:
        """(B, C) of features (B, S, D), of which seen (B, S) bool count, and state (B, STATE)."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width = features.shape[-1]
        queries = self.param("queries", nn.initializers.normal(1.0), (config.queries, width))
        scores = jnp.einsum("bsd,qd->bqs", features, queries, preferred_element_type=jnp.float32)
        share = jax.nn.softmax(jnp.where(seen[:, None], scores / width**0.5, HIDDEN))
        pooled = jnp.einsum("bqs,bsd->bqd", share.astype(features.dtype), features)
        x = jnp.concatenate([pooled.reshape(len(pooled), -1), state.astype(dtype)], axis=-1)
        hidden = nn.silu(nn.Dense(2 * config.head_width, dtype=dtype, name="hidden")(x))
        return nn.Dense(config.head_width, dtype=dtype, name="out")(hidden).astype(jnp.float32)


class Layer(nn.Module):
    """Attention over the chunk's rows and an MLP, scaled, shifted and gated by a condition."""

    config: VlaConfig

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """(B, H, C) from x (B, H, C) and condition (B, C)."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width, heads = x.shape[-1], (*x.shape[:2], config.head_heads, -1)
        parts = jnp.split(_modulation(condition, 6 * width, dtype), 6, axis=-1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        h = _normed(x, dtype) * (1 + scale) + shift
        packed = nn.Dense(3 * width, dtype=dtype, name="packed")(h)
        query, key, value = (part.reshape(heads) for part in jnp.split(packed, 3, axis=-1))
        mixed = attend(query, key, value, jnp.ones((1, x.shape[1], x.shape[1]), bool))
        x = x + gate * nn.Dense(width, dtype=dtype, name="mixed")(mixed.reshape(x.shape))
        h = _normed(x, dtype) * (1 + scale_mlp) + shift_mlp
        h = nn.gelu(nn.Dense(4 * width, dtype=dtype, name="inner")(h))
        return x + gate_mlp * nn.Dense(width, dtype=dtype, name="outer")(h)


class ActionHead(nn.Module):
    """`condition` once, `denoise` any number of noisy chunks against it."""

    config: VlaConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.follows = follows_reasoning(config.injection, config.head_layers)
        self.observed, self.reasoned = Pool(config), Pool(config)
        self.time_in = nn.Dense(config.head_width, dtype=dtype)
        self.time_out = nn.Dense(config.head_width, dtype=dtype)
        self.row = self.param(
            "row", nn.initializers.normal(0.02), (config.horizon, config.head_width)
        )
        self.enter = nn.Dense(config.head_width, dtype=dtype)
        self.layers = [Layer(config) for _ in range(config.head_layers)]
        self.last = Last(dtype)

    def condition(
        self, features: jax.Array, prompt: jax.Array, reasoning: jax.Array, state: jax.Array
    ) -> Conditions:
        """What the features (B, S, D) and the arm's state (B, STATE) say.

        prompt and reasoning: (B, S) bool, which features are those of picture and prompt, and
        which those of the reasoning.
        """
        nothing = jnp.zeros((len(state), self.config.head_width))
        return Conditions(
            nothing if all(self.follows) else self.observed(features, prompt, state),
            self.reasoned(features, reasoning, state) if any(self.follows) else nothing,
        )

    def denoise(self, conditions: Conditions, noisy: jax.Array, step: jax.Array) -> jax.Array:
        """Clean normalised chunk (B, H, 10) from a noisy one at diffusion step (B,)."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        embedded = embed_step(step, config.head_width, config.train_steps)
        time = self.time_out(nn.silu(self.time_in(embedded))).astype(jnp.float32)
        of_layer = [
            time + (conditions.reasoned if follows else conditions.observed)
            for follows in self.follows
        ]
        x = self.enter(noisy) + self.row.astype(dtype)
        for layer, condition in zip(self.layers, of_layer, strict=False):
            x = layer(x, condition)
        return self.last(x, of_layer[-1]).astype(jnp.float32)


class Last(nn.Module):
    """The chunk of the last layer's rows; zero at first."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        shift, scale = jnp.split(_modulation(condition, 2 * x.shape[-1], self.dtype), 2, axis=-1)
        x = _normed(x, self.dtype) * (1 + scale) + shift
        return nn.Dense(
            ACTION_DIM, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out"
        )(x)


def _modulation(condition: jax.Array, features: int, dtype: jnp.dtype) -> jax.Array:
    """(B, 1, features), zero at first."""
    dense = nn.Dense(
        features, kernel_init=nn.initializers.zeros, dtype=dtype, name="modulation"
    )
    return dense(nn.silu(condition))[:, None]


def _normed(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return nn.LayerNorm(use_bias=False, use_scale=False, dtype=dtype)(x)
