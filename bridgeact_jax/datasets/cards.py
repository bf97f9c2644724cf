"""Dataset cards: where the end-effector motion lies in an RLDS dataset and by which conventions.

A card is a TOML file, data/cards/<name>.toml; data/README.md explains its tables. One interpreter
(`interpret.py`) reads every dataset through its card, so that a new dataset needs no code.
"""

import hashlib
import os
import pathlib
import tomllib

from bridgeact_jax.datasets.card_format import Card
from bridgeact_jax.datasets.card_parser import parse_card
from bridgeact_jax.datasets.resources import data_directory
from bridgeact_jax.errors import UsageError, UserError, nearest


def card_paths() -> dict[str, pathlib.Path]:
    """{name: file} of the cards that ship with the project."""
    return {path.stem: path for path in sorted(data_directory("cards").glob("*.toml"))}


def load_card(name: str | os.PathLike) -> Card:
    """The card called `name`, or the card file `name` if it ends in .toml.

    Raises UsageError for an unknown name, UserError for a card that does not hold together.
    """
    paths = card_paths()
    if str(name).endswith(".toml"):
        path = pathlib.Path(name)
    elif str(name) in paths:
        path = paths[str(name)]
    else:
        raise UsageError(f"unknown card '{name}': {nearest(str(name), paths)}")
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise UsageError(f"cannot read the card {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"card {path} is not valid TOML: {error}") from None
    return parse_card(table, path, hashlib.sha256(content).hexdigest())


def find_card(dataset_name: str) -> Card | None:
    """The shipped card that lists `dataset_name`, or None."""
    for name, path in card_paths().items():
        if dataset_name in path.read_text(encoding="utf-8"):
            card = load_card(name)
            if dataset_name in card.dataset_names:
                return card
    return None


def require_convertible(card: Card) -> None:
    """Raise a UserError with the reason if the card refuses its dataset."""
    if card.refused is not None:
        raise UserError(f"{card.name}: refused: {card.refused}")
