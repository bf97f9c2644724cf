"""A trained model that is asked in words and answers in words."""

from collections.abc import Sequence

import jax
import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.vla.generate import generate
from bridgeact_jax.vla.model import Texts, Vla
from bridgeact_jax.vla.tokenizer import PAD, decode, prompt_tokens


class Speaker:
    """Answers questions about pictures, `batch` at a time: one size is compiled.

    Answers are the likeliest token by token, or drawn where a temperature is given.
    """

    def __init__(self, vla: Vla, batch: int = 1):
        self._vla, self._batch = vla, batch

    def say(
        self,
        pictures: np.ndarray,
        prompts: Sequence[str],
        *,
        robot: bool,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """An answer to each of one or more prompts; one that reaches the limit is cut off there.

        Args:
          pictures: (N, H, W, 3) uint8.
          robot: whether they are instructions of a robot or questions about a picture.
          temperature: of the draw, 0 for none; answer i draws from `seed` and i.

        Raises UserError for pictures of another size than the model's, and for prompts that are too
        long or not in the vocabulary.
        """
        texts = self.speak(pictures, prompts, robot=robot, temperature=temperature, seed=seed)
        return said(texts)

    def speak(
        self,
        pictures: np.ndarray,
        prompts: Sequence[str],
        *,
        robot: bool,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Texts:
        """The same as `say`, as tokens with their prompts: what `act` follows. NumPy, N rows."""
        model, params = self._vla.model, self._vla.params
        wanted = (len(prompts), *model.picture, 3)
        if np.shape(pictures) != wanted or pictures.dtype != np.uint8:
            kind = getattr(pictures, "dtype", type(pictures).__name__)
            raise UserError(f"pictures are {np.shape(pictures)} {kind}: must be {wanted} uint8")
        tokens = np.full((len(prompts), model.text_length), PAD, np.int32)
        length = np.zeros(len(prompts), np.int32)
        for row, prompt in enumerate(prompts):
            ids = prompt_tokens(prompt, model.text_length)
            tokens[row, : len(ids)], length[row] = ids, len(ids)
        draw = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        keys = draw(jax.random.key(seed), np.arange(len(prompts)))
        spoken = []
        for start in range(0, len(prompts), self._batch):
            row = np.minimum(np.arange(start, start + self._batch), len(prompts) - 1)
            texts = generate(
                model, params, pictures[row], tokens[row], length[row],
                np.full(self._batch, robot), np.float32(temperature), keys[row],
            )  # fmt: skip
            spoken.append(jax.device_get(texts))
        return Texts(*(np.concatenate(part)[: len(prompts)] for part in zip(*spoken, strict=True)))


def said(texts: Texts) -> list[str]:
    """The answers of texts that were spoken."""
    return [decode(tokens[first:last].tolist()) for tokens, first, last in zip(*texts, strict=True)]
