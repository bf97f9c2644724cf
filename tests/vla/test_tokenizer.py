"""Text to tokens and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.errors import UserError
from bridgeact_jax.vla.tokenizer import (
    ANSWER,
    DIGITS,
    END,
    SIGNS,
    SPECIALS,
    START,
    TOKENS,
    WORDS,
    canonical,
    decode,
    encode,
    prompt_tokens,
    sample_tokens,
)

ids = st.lists(st.integers(len(SPECIALS), len(TOKENS) - 1))


def test_the_vocabulary_is_words_digits_and_signs_without_doubles():
    assert len(set(TOKENS)) == len(TOKENS)
    assert all(word.isalpha() and word == word.lower() for word in WORDS)


@given(ids)
def test_what_the_model_says_is_read_back_as_it_was_said(spoken):
    text = decode(spoken)
    assert encode(text) == spoken
    assert canonical(text) == text == text.strip() and "  " not in text


@given(ids, st.sampled_from([str.upper, str.title, lambda text: f"  {text}\n"]))
def test_letters_and_outer_spaces_change_nothing(spoken, written):
    assert encode(written(decode(spoken))) == spoken


@pytest.mark.parametrize("text, tokens", [
    ("412", ["4", "1", "2"]), ("3 - 5 = -2", ["3", "-", "5", "=", "-", "2"]),
    ("(7, 08).", ["(", "7", ",", "0", "8", ")", "."]),
])  # fmt: skip
def test_numbers_are_read_digit_by_digit(text, tokens):
    assert [TOKENS[index] for index in encode(text)] == tokens
    assert canonical(text) == text


@given(st.lists(st.sampled_from((*DIGITS, *SIGNS, *WORDS, "@", "qqq", " ", "\n", "\0", "é"))))
def test_a_text_is_read_or_refused(pieces):
    text = "".join(pieces)
    try:
        assert encode(canonical(text)) == encode(text)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text, message", [
    (f"{WORDS[0]}q", f"the word '{WORDS[0]}q': did you mean '{WORDS[0]}'"),
    ("3 @ 4", "the sign '@'"), ("12 34", "two numbers with only space between"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(UserError, match=message):
        encode(text)


def test_a_sample_is_prompt_and_answer_and_has_its_limit():
    assert sample_tokens("1", "23", 6) == ([START, *encode("1"), ANSWER, *encode("23"), END], 3)
    with pytest.raises(UserError, match="6 tokens of at most config.model.text_length = 5"):
        sample_tokens("1", "23", 5)
    with pytest.raises(UserError, match="5 tokens of at most 4"):
        prompt_tokens("123", 5)
