"""One record after the other to episodes, or to the reason why there is none."""

import dataclasses
from typing import NamedTuple

import numpy as np

from bridgeact_jax.datasets import rotation_check
from bridgeact_jax.datasets.bind import bind_card
from bridgeact_jax.datasets.cards import Card
from bridgeact_jax.datasets.depth_clouds import cloud_keys, episode_clouds
from bridgeact_jax.datasets.episode import Episode, RejectedEpisode
from bridgeact_jax.datasets.interpret import interpret_episode
from bridgeact_jax.datasets.plausibility import check_plausible
from bridgeact_jax.datasets.rlds_reader import RldsDataset
from bridgeact_jax.datasets.tf_example import MalformedExample


class Reading(NamedTuple):
    """Episode `index` of the split, and what was noted about it.

    flags: short texts. evidence: (K,) sums for the rotation check, or None.
    """

    index: int
    episode: Episode
    flags: list[str]
    evidence: np.ndarray | None


class EpisodeReader:
    """Reads the episodes of one split through a card.

    Args:
      clouds: make a cloud for every step, from what the card says there is.

    Raises UserError if the card does not fit the dataset, or there is nothing to make clouds from.
    """

    def __init__(self, dataset: RldsDataset, card: Card, split: str, *, clouds: bool):
        self.card = card
        self._dataset, self._clouds = dataset, clouds
        self._total = dataset.split(split).num_episodes
        self._keys = bind_card(card, dataset)
        self.with_cloud = clouds or "cloud" in self._keys
        if clouds:
            self._keys |= cloud_keys(card, dataset)
        self._columns = set(self._keys.values())

    def read(self, record: bytes, index: int) -> Reading:
        """The episode of a record. Raises RejectedEpisode if it cannot be used."""
        columns = self._dataset.parse(record, self._columns)
        if isinstance(columns, MalformedExample):
            raise RejectedEpisode(f"malformed record: {columns}")
        episode = interpret_episode(self.card, self._keys, columns, index)
        flags = check_plausible(self.card, self._keys, columns, episode)
        evidence = None
        if rotation_check.chosen(index, self._total):
            evidence = rotation_check.evidence(self.card, self._keys, columns, episode)
        if self._clouds:
            cloud = episode_clouds(self.card, self._keys, columns, episode)
            episode = dataclasses.replace(episode, cloud=cloud)
        return Reading(index, episode, flags, evidence)
