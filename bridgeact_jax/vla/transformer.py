"""The vision-language model: patches and text tokens through one decoder-only transformer.

A sequence is the picture's patches, row by row, and then the text. The patches see each other, a
text token sees the picture and the text up to itself. Positions are rotary over the whole sequence;
patches also have a learned row and column. Pre-norm with RMSNorm; input and output embeddings are
one table.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bridgeact_jax.vla.experts import DenseMlp, ExpertMlp
from bridgeact_jax.vla.sizes import VlaConfig

LONGEST_WAVE = 1e4  # tokens, of the rotary embedding
HIDDEN = -1e9  # score of what may not be seen

Cache = tuple[tuple[jax.Array, jax.Array], ...]  # keys and values (B, S, heads, D) of each layer


def rotate(x: jax.Array, position: jax.Array) -> jax.Array:
    """Rotary embedding (Su et al., 2021) of x (B, n, heads, D) at position (B, n), float32."""
    half = x.shape[-1] // 2
    frequency = LONGEST_WAVE ** (-jnp.arange(half) / half)
    angle = position[..., None, None] * frequency
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array) -> jax.Array:
    """Softmax attention (B, n, heads, D); seen: (B or 1, n, S) bool, which keys a query sees."""
    scores = jnp.einsum("bnhd,bshd->bhns", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(seen[:, None], scores / query.shape[-1] ** 0.5, HIDDEN)
    share = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.einsum("bhns,bshd->bnhd", share, value)


class Block(nn.Module):
    """Attention and MLP, or mixture of experts, each behind a norm and beside a skip."""

    config: VlaConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        position: jax.Array,
        robot: jax.Array,
        cache: tuple[jax.Array, jax.Array] | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """x (B, n, D) at position (B, n), and the keys and values it sees.

        Args:
          robot: (B,) bool, the kind of each sample.
          cache: keys and values of all S positions, of which those of x are written; None where x
            is the whole sequence.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        batch, length, width = x.shape
        heads = (batch, length, config.heads, -1)
        normed = nn.RMSNorm(dtype=dtype, name="attention_norm")(x)
        packed = nn.Dense(3 * width, use_bias=False, dtype=dtype, name="packed")(normed)
        query, key, value = (part.reshape(heads) for part in jnp.split(packed, 3, axis=-1))
        query, key = (rotate(part, position).astype(dtype) for part in (query, key))
        if cache is not None:
            rows = jnp.arange(batch)[:, None]
            key = cache[0].at[rows, position].set(key)
            value = cache[1].at[rows, position].set(value)
        index = jnp.arange(key.shape[1])
        seen = index <= jnp.maximum(position, config.patches - 1)[..., None]
        mixed = attend(query, key, value, seen).reshape(x.shape)
        x = x + nn.Dense(width, use_bias=False, dtype=dtype, name="mixed")(mixed)
        normed = nn.RMSNorm(dtype=dtype, name="mlp_norm")(x)
        if config.mlp == "dense":
            mlp = DenseMlp(config.mlp_width, dtype, name="mlp")
        else:
            mlp = ExpertMlp(
                config.mlp, config.experts, config.top_k, config.mlp_width, dtype, name="mlp"
            )
        return x + mlp(normed, robot), (key, value)


class Vlm(nn.Module):
    """Pictures and text in, features out; `logits` of the next token, `follow` with a cache."""

    config: VlaConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        rows, columns = (side // config.patch for side in config.picture)
        normal = nn.initializers.normal(0.02)
        self.patch_in = nn.Dense(2 * config.width, dtype=dtype)
        self.patch_out = nn.Dense(config.width, dtype=dtype)
        self.row = self.param("row", normal, (rows, 1, config.width))
        self.column = self.param("column", normal, (1, columns, config.width))
        self.table = nn.Embed(
            config.vocabulary, config.width, embedding_init=normal, dtype=dtype
        )
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.norm = nn.RMSNorm(dtype=dtype)

    def __call__(
        self, pictures: jax.Array, tokens: jax.Array, robot: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Features (B, patches + T, D) and the cache of whole sequences.

        Args:
          pictures: (B, H, W, 3) uint8. tokens: (B, T) int32; what stands behind a text changes
            nothing before it. robot: (B,) bool, the kind of each sample.
        """
        x = jnp.concatenate([self._patches(pictures), self.table(tokens)], axis=1)
        position = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        cache = []
        for block in self.blocks:
            x, own = block(x, position, robot, None)
            cache.append(own)
        return self.norm(x), tuple(cache)

    def follow(
        self, tokens: jax.Array, position: jax.Array, robot: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Features (B, n, D) of tokens (B, n) at `position` (B, n) of the sequence, patches
        counted in, behind what the cache holds; and the cache with them.
        """
        x, new = self.table(tokens), []
        for block, own in zip(self.blocks, cache, strict=True):
            x, own = block(x, position, robot, own)
            new.append(own)
        return self.norm(x), tuple(new)

    def logits(self, features: jax.Array) -> jax.Array:
        """(..., vocabulary) float32 of the token that follows features (..., D)."""
        table = self.table.embedding.astype(features.dtype)
        return jnp.einsum("...d,vd->...v", features, table, preferred_element_type=jnp.float32)

    def _patches(self, pictures: jax.Array) -> jax.Array:
        size = self.config.patch
        batch, height, width, _ = pictures.shape
        x = pictures.astype(jnp.float32) / 127.5 - 1
        x = x.reshape(batch, height // size, size, width // size, size, 3).swapaxes(2, 3)
        x = self.patch_out(nn.gelu(self.patch_in(x.reshape(*x.shape[:3], -1))))
        x = x + (self.row + self.column).astype(x.dtype)
        return x.reshape(batch, -1, x.shape[-1])
