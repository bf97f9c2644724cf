"""ChatVLA-2 (arXiv 2505.21906) at a size that trains on a CPU: the VLM and the action head as one.

Parameters are {"vlm": ..., "head": ...}, so that either can be frozen.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import ACTION_DIM
from bridgeact_jax.vla.head import STATE, ActionHead, Conditions
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.transformer import Cache, Vlm


class Texts(NamedTuple):
    """Prompts and answers: tokens (B, T) int32, padded; what of them is the prompt, and all of it,
    prompt_length and length (B,) int32, counted in tokens.
    """

    tokens: jax.Array
    prompt_length: jax.Array
    length: jax.Array

    def answers(self) -> jax.Array:
        """(B, T) bool: the tokens of the answers, their ends included."""
        index = jnp.arange(self.tokens.shape[1])
        return (index >= self.prompt_length[:, None]) & (index < self.length[:, None])


class ChatVla(nn.Module):
    """`read`, then `logits` of what follows, or `condition` and `denoise` a chunk of actions."""

    config: VlaConfig

    def setup(self):
        self.vlm, self.head = Vlm(self.config), ActionHead(self.config)

    def read(
        self, pictures: jax.Array, tokens: jax.Array, robot: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Features and cache of whole sequences: see `Vlm.__call__`."""
        return self.vlm(pictures, tokens, robot)

    def follow(
        self, tokens: jax.Array, position: jax.Array, robot: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Features of tokens behind a cache: see `Vlm.follow`."""
        return self.vlm.follow(tokens, position, robot, cache)

    def logits(self, features: jax.Array) -> jax.Array:
        """(..., vocabulary) of the token that follows features (..., D)."""
        return self.vlm.logits(features)

    def condition(self, features: jax.Array, texts: Texts, state: jax.Array) -> Conditions:
        """What chunks are denoised against: features (B, patches + T, D) of `texts`, and the arm's
        state (B, STATE).
        """
        patches = self.config.patches
        room = ((0, 0), (patches, 0))
        index = jnp.arange(features.shape[1])
        prompt = index < patches + texts.prompt_length[:, None]
        return self.head.condition(features, prompt, jnp.pad(texts.answers(), room), state)

    def denoise(self, conditions: Conditions, noisy: jax.Array, step: jax.Array) -> jax.Array:
        """Clean normalised chunk (B, H, 10) from a noisy one at diffusion step (B,)."""
        return self.head.denoise(conditions, noisy, step)

    def __call__(
        self,
        pictures: jax.Array,
        texts: Texts,
        robot: jax.Array,
        state: jax.Array,
        noisy: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Logits of all tokens and a clean chunk: everything, for initialisation."""
        features, _ = self.read(pictures, texts.tokens, robot)
        chunk = self.denoise(self.condition(features, texts, state), noisy, step)
        return self.logits(features), chunk


class Vla(NamedTuple):
    """A trained model: its sizes, EMA parameters and the normalizer of its chunks."""

    model: VlaConfig
    params: dict
    normalizer: Normalizer


def example_inputs(config: VlaConfig, batch: int = 1) -> tuple:
    """Zero arguments of `ChatVla.__call__`, for initialisation by shape; a text of two tokens."""
    lengths = jnp.ones(batch, jnp.int32)
    return (
        jnp.zeros((batch, *config.picture, 3), jnp.uint8),
        Texts(jnp.zeros((batch, 2), jnp.int32), lengths, lengths + 1),
        jnp.zeros(batch, bool),
        jnp.zeros((batch, STATE)),
        jnp.zeros((batch, config.horizon, ACTION_DIM)),
        jnp.zeros(batch, jnp.int32),
    )


def initial_params(config: VlaConfig, key: jax.Array) -> dict:
    """Parameters of a model that has learned nothing."""
    return ChatVla(config).init(key, *example_inputs(config))["params"]
