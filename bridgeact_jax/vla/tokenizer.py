"""Text as tokens: words, single digits and single signs, in lower case.

Numbers are read and written digit by digit. The vocabulary is fixed: `SPECIALS`, digits, `SIGNS`
and, after them, the words of `vla/words.py`, to which words may only be added at the end. A model's
table has rows to spare, so that its checkpoints outlive added words.
"""

import re

from bridgeact_jax.errors import UserError, nearest
from bridgeact_jax.vla.words import WORDS

SPECIALS = ("<pad>", "<start>", "<answer>", "<end>")
PAD, START, ANSWER, END = range(len(SPECIALS))
DIGITS = tuple("0123456789")
SIGNS = tuple("+-×÷=.,:;?!()/*<>'\"")
TOKENS = (*SPECIALS, *DIGITS, *SIGNS, *WORDS)

_ID = {token: index for index, token in enumerate(TOKENS)}
_PIECE = re.compile(r"[^\W\d_]+|\S")
_CLOSING, _OPENING = frozenset(".,:;?!)"), frozenset("(")


def encode(text: str) -> list[int]:
    """The tokens of a text. Raises UserError for what is not in the vocabulary.

    Two numbers with nothing but space between are refused, for they would be read as one.
    """
    lowered = text.lower()
    ids, end = [], None
    for piece in _PIECE.finditer(lowered):
        word, start = piece[0], piece.start()
        if word not in _ID:
            what = "word" if word.isalpha() else "sign"
            choices = WORDS if word.isalpha() else (*DIGITS, *SIGNS)
            raise UserError(
                f"'{_short(text)}': the model does not know the {what} '{word}': "
                f"{nearest(word, choices)}"
            )
        if word in DIGITS and ids and TOKENS[ids[-1]] in DIGITS and start != end:
            raise UserError(
                f"'{_short(text)}': two numbers with only space between: put a word or a sign there"
            )
        ids.append(_ID[word])
        end = piece.end()
    return ids


def decode(ids) -> str:
    """The text of tokens in its canonical spacing; pads, starts and ends are left out.

    One space between pieces, but none inside a number, before closing punctuation, or after "(".
    A minus before a digit and not after one is its sign. Raises UserError for ids that are no
    tokens.
    """
    text, before, sticks = "", "", True
    for index in ids:
        if not 0 <= index < len(TOKENS):
            raise UserError(f"{index} is no token: must be from 0 to {len(TOKENS) - 1}")
        if index < len(SPECIALS):
            continue
        token = TOKENS[index]
        number = token in DIGITS and before in DIGITS
        signed = token in DIGITS and before == "-" and sticks
        opened = before in _OPENING
        joined = not text or token in _CLOSING or number or signed or opened
        text += token if joined else " " + token
        sticks = before not in DIGITS  # whether a minus here would be a sign
        before = token
    return text


def canonical(text: str) -> str:
    """The text as the model would write it."""
    return decode(encode(text))


def prompt_tokens(prompt: str, limit: int) -> list[int]:
    """What the model is given before it speaks. Raises UserError if there is no room to answer."""
    ids = [START, *encode(prompt), ANSWER]
    if len(ids) >= limit:
        raise UserError(
            f"'{_short(prompt)}': {len(ids)} tokens of at most {limit - 1}: a shorter text, or a "
            "model with a larger config.model.text_length"
        )
    return ids


def sample_tokens(prompt: str, answer: str, limit: int) -> tuple[list[int], int]:
    """Prompt and answer as one, and the prompt's part of it in tokens.

    Raises UserError if they are longer than `limit` tokens or not in the vocabulary.
    """
    first = [START, *encode(prompt), ANSWER]
    ids = [*first, *encode(answer), END]
    if len(ids) > limit:
        raise UserError(
            f"'{_short(prompt)}' with its answer: {len(ids)} tokens of at most "
            f"config.model.text_length = {limit}"
        )
    return ids, len(first)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:60]}..."
