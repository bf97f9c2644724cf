"""Mixtures: their files, their stores, and what share each dataset gets."""

import numpy as np
import pytest

from bridgeact_jax.datasets import mixture as mixtures
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.mixture import load_mixture, mixture_paths, open_stores
from bridgeact_jax.datasets.store import StoreWriter
from bridgeact_jax.errors import UsageError, UserError
from tests.datasets.planted_store import make_episode

TEXT = """
name = "two"
title = "Two datasets"
citation = ""
weights = "{weights}"
[datasets]
bridge = 1.0
demonstrations = 3
[left_out]
droid = "too large for a test"
"""


def write(folder, text=TEXT, weights="given"):
    path = folder / "two.toml"
    path.write_text(text.replace("{weights}", weights))
    return path


def write_store(path, card: str, lengths):
    with StoreWriter(path, with_cloud=False) as writer:
        for number, steps in enumerate(lengths):
            writer.append(make_episode(number, steps), np.array([0, steps - 1]))
        writer.finish(card=card)


@pytest.fixture
def stores(tmp_path):
    folder = tmp_path / "stores"
    folder.mkdir()
    write_store(folder / "bridge", "bridge", (10, 20))
    write_store(folder / "demonstrations", "demonstrations", (5, 5, 5, 5))
    return folder


@pytest.mark.parametrize("name", mixture_paths())
def test_shipped_mixtures_hold_together(name):
    mixture = load_mixture(name)
    assert mixture.name == name and mixture.title and mixture.datasets
    for dataset in mixture.datasets:
        assert load_card(dataset).refused is None


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("given", [1, 3]), ("episodes", [1 * 2, 3 * 4]), ("steps", [1 * 30, 3 * 20])],
)
def test_the_probability_is_proportional_to(weights, expected, tmp_path, stores):
    mixture = load_mixture(write(tmp_path, weights=weights))
    opened = open_stores(mixture, stores)
    assert [store.path.name for store in opened] == ["bridge", "demonstrations"]
    share = np.array(expected) / np.sum(expected)
    np.testing.assert_allclose(mixture.probability(opened), share, rtol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("bridge = 1.0", "brigde = 1.0", UsageError, r"unknown card 'brigde': did you mean"),
        ("bridge = 1.0", "toto = 1.0", UserError, r"'toto' cannot be converted \(.*\[left_out\]"),
        ("bridge = 1.0", "bridge = -1", UserError, r"\[datasets\] 'bridge' must be a positive num"),
        ("bridge = 1.0", "droid = 1.0", UserError, r"'droid' is in \[datasets\] and in \[left_out"),
        ("droid = ", "droid = 3 #", UserError, r"\[left_out\] 'droid' must be text"),
        ('"{weights}"', '"hours"', UserError, r"'weights' must be one of steps, episodes, given"),
        ("title", "titel", UserError, r"mixture .*two\.toml: lacks 'title'"),
        ("citation", "cite = 1\ncitation", UserError, r"unknown entry 'cite'"),
        ("bridge = 1.0\ndemonstrations = 3", "", UserError, r"\[datasets\] names no dataset"),
        ("[left_out]", "[left_out", UserError, r"two\.toml is not valid TOML"),
    ],
)
def test_a_wrong_mixture_is_refused(old, new, error, message, tmp_path):
    assert old in TEXT
    with pytest.raises(error, match=message) as caught:
        load_mixture(write(tmp_path, TEXT.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_an_unknown_mixture_is_refused_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "data_directory", lambda name: tmp_path)
    write(tmp_path)
    assert load_mixture("two").title == "Two datasets"
    with pytest.raises(UsageError, match="unknown mixture 'tow': .*two"):
        load_mixture("tow")
    with pytest.raises(UsageError, match="cannot read the mixture"):
        load_mixture(tmp_path / "none.toml")


def test_every_missing_store_is_listed_with_the_command_that_makes_it(tmp_path, stores):
    mixture = load_mixture(write(tmp_path))
    with pytest.raises(UserError) as caught:
        open_stores(mixture, tmp_path)
    message = str(caught.value)
    assert "2 of its 2 datasets: bridge, demonstrations;" in message
    assert f"bridgeact convert --rlds=DIR --card=NAME --out={tmp_path}/NAME" in message
    (stores / "bridge" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"1 of its 2 datasets: bridge;.*--card=bridge --out="):
        open_stores(mixture, stores)


def test_a_store_of_another_card_is_refused(tmp_path, stores):
    (stores / "bridge").rename(stores / "elsewhere")
    write_store(stores / "bridge", "taco_play", (4,))
    with pytest.raises(UserError, match="was converted with the card 'taco_play'"):
        open_stores(load_mixture(write(tmp_path)), stores)
