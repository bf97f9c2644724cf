"""Speaking: answers token by token, batched, with a cache of keys and values."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridgeact_jax.vla.model import ChatVla, Texts
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.tokenizer import ANSWER, END, PAD, START, TOKENS

UNSPEAKABLE = (PAD, START, ANSWER)


class _Spoken(NamedTuple):
    tokens: jax.Array
    length: jax.Array
    logits: jax.Array
    finished: jax.Array
    cache: tuple


@partial(jax.jit, static_argnames="config")
def generate(
    config: VlaConfig,
    params: dict,
    pictures: jax.Array,
    tokens: jax.Array,
    length: jax.Array,
    robot: jax.Array,
    temperature: jax.Array,
    keys: jax.Array,
) -> Texts:
    """Prompts with their answers, each up to its end or to the last of T tokens.

    Args:
      pictures: (B, H, W, 3) uint8.
      tokens: (B, T) int32 prompts, padded; length: (B,) of each, less than T.
      robot: (B,) bool, the kind of each sample.
      temperature: () of the draw of a token; 0 takes the likeliest.
      keys: (B,) typed PRNG keys, one a row, so that a row does not depend on its batch.
    """
    model, variables = ChatVla(config), {"params": params}
    rows, limit = jnp.arange(len(tokens)), tokens.shape[1]
    features, cache = model.apply(variables, pictures, tokens, robot, method=ChatVla.read)
    logits = partial(model.apply, variables, method=ChatVla.logits)
    prompt_length = length.astype(jnp.int32)
    first = logits(features[rows, config.patches + prompt_length - 1])
    start = _Spoken(tokens, prompt_length, first, jnp.zeros(len(tokens), bool), cache)

    def speaking(now: _Spoken) -> jax.Array:
        return ~jnp.all(now.finished)

    def speak(now: _Spoken) -> _Spoken:
        token = _chosen(now.logits, temperature, keys, now.length)
        place = jnp.where(now.finished, limit, now.length)  # beyond the end nothing is written
        tokens = now.tokens.at[rows, place].set(token, mode="drop")
        length = jnp.where(now.finished, now.length, now.length + 1)
        finished = now.finished | (token == END) | (length == limit)
        position = (config.patches + length - 1)[:, None]
        features, cache = model.apply(
            variables, tokens[rows, length - 1][:, None], position, robot, now.cache,
            method=ChatVla.follow,
        )  # fmt: skip
        return _Spoken(tokens, length, logits(features[:, 0]), finished, cache)

    spoken = jax.lax.while_loop(speaking, speak, start)
    return Texts(spoken.tokens, prompt_length, spoken.length)


def _chosen(
    logits: jax.Array, temperature: jax.Array, keys: jax.Array, length: jax.Array
) -> jax.Array:
    """(B,) the next tokens by logits (B, vocabulary), drawn by each row's key and length."""
    speakable = jnp.arange(logits.shape[1]) < len(TOKENS)
    speakable = speakable.at[jnp.array(UNSPEAKABLE)].set(False)
    logits = jnp.where(speakable, logits, -jnp.inf)
    warm = logits / jnp.where(temperature > 0, temperature, 1.0)
    drawn = jax.vmap(lambda key, n, row: jax.random.categorical(jax.random.fold_in(key, n), row))(
        keys, length, warm
    )
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits, axis=1)).astype(jnp.int32)
