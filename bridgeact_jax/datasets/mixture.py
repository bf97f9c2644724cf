"""Mixtures: which datasets a training draws from, and how often.

A mixture is a TOML file, data/mixtures/<name>.toml; data/README.md explains its entries. Its
datasets are names of cards, and the store of each lies in a folder of that name.
"""

import os
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridgeact_jax.datasets.card_table import Table
from bridgeact_jax.datasets.cards import card_paths, load_card
from bridgeact_jax.datasets.resources import data_directory
from bridgeact_jax.datasets.store import MANIFEST, TrajectoryStore, open_store
from bridgeact_jax.errors import UsageError, UserError, nearest

WEIGHTS = ("steps", "episodes", "given")


@dataclass(frozen=True)
class Mixture:
    """A mixture's file.

    datasets: {card: weight}, positive. weights: what a weight multiplies to give the probability of
    drawing from a dataset: its "steps" (at its own rate), its "episodes", or nothing ("given").
    left_out: {dataset: why it is not in the mixture}.
    """

    name: str
    title: str
    citation: str
    weights: str
    datasets: dict[str, float]
    left_out: dict[str, str]

    def probability(self, stores: Sequence[TrajectoryStore]) -> np.ndarray:
        """(D,) of drawing a window from each of its stores, in the order of `datasets`."""
        share = np.array(list(self.datasets.values()))
        if self.weights != "given":
            share = share * [store.manifest[self.weights] for store in stores]
        return share / share.sum()


def mixture_paths() -> dict[str, pathlib.Path]:
    """{name: file} of the mixtures that ship with the project."""
    return {path.stem: path for path in sorted(data_directory("mixtures").glob("*.toml"))}


def load_mixture(name: str | os.PathLike) -> Mixture:
    """The mixture called `name`, or the file `name` if it ends in .toml.

    Raises UsageError for an unknown mixture or a dataset without a card, UserError for a file that
    does not hold together or a dataset whose card refuses it.
    """
    paths = mixture_paths()
    if str(name).endswith(".toml"):
        path = pathlib.Path(name)
    elif str(name) in paths:
        path = paths[str(name)]
    else:
        raise UsageError(f"unknown mixture '{name}': {nearest(str(name), paths)}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the mixture {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"mixture {path} is not valid TOML: {error}") from None
    mixture = _parse(content, path)
    cards = card_paths()
    for dataset in mixture.datasets:
        if dataset not in cards:
            raise UsageError(
                f"mixture {path}: [datasets] unknown card '{dataset}': {nearest(dataset, cards)}"
            )
        refused = load_card(dataset).refused
        if refused is not None:
            raise UserError(
                f"mixture {path}: [datasets] '{dataset}' cannot be converted ({refused}): move it "
                "to [left_out]"
            )
    return mixture


def _parse(content: Mapping[str, Any], path: pathlib.Path) -> Mixture:
    table = Table(content, path, kind="mixture")
    mixture = Mixture(
        name=table.filled("name"),
        title=table.filled("title"),
        citation=table.text("citation").strip(),
        weights=table.word("weights", WEIGHTS),
        datasets=table.table("datasets", lambda t: {word: t.positive(word) for word in [*t.rest]}),
        left_out=table.table(
            "left_out", lambda t: {word: t.filled(word) for word in [*t.rest]}, {}
        ),
    )
    table.finish()
    if not mixture.datasets:
        raise UserError(f"mixture {path}: [datasets] names no dataset")
    both = mixture.datasets.keys() & mixture.left_out.keys()
    if both:
        raise UserError(f"mixture {path}: '{min(both)}' is in [datasets] and in [left_out]")
    return mixture


def open_stores(mixture: Mixture, folder: str | os.PathLike) -> list[TrajectoryStore]:
    """The mixture's stores, folder/<card>, in the order of `datasets`.

    Raises a UserError that lists every missing store, or for a store of another card.
    """
    folder = pathlib.Path(folder)
    missing = [name for name in mixture.datasets if not (folder / name / MANIFEST).is_file()]
    if missing:
        name = missing[0] if len(missing) == 1 else "NAME"
        raise UserError(
            f"mixture '{mixture.name}': {folder} lacks the stores of {len(missing)} of its "
            f"{len(mixture.datasets)} datasets: {', '.join(missing)}; make each with `bridgeact "
            f"convert --rlds=DIR --card={name} --out={folder / name}`, or leave it out in a "
            "mixture file of your own"
        )
    stores = []
    for name in mixture.datasets:
        store = open_store(folder / name)
        if store.manifest["card"] != name:
            raise UserError(
                f"{folder / name} was converted with the card '{store.manifest['card']}', where "
                f"mixture '{mixture.name}' wants '{name}'"
            )
        stores.append(store)
    return stores
