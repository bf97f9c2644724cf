"""What a conversion accounts for: its inputs, what was left out or is odd, the manifest's facts."""

import collections
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from bridgeact_jax import __version__
from bridgeact_jax.datasets import files
from bridgeact_jax.datasets.cards import Card
from bridgeact_jax.datasets.parts import KEYFRAME_TOLERANCE
from bridgeact_jax.datasets.rlds_reader import RldsDataset
from bridgeact_jax.datasets.rotation_check import judge, no_evidence
from bridgeact_jax.datasets.store import SCHEMA_VERSION
from bridgeact_jax.errors import UserError


def episodes_in(report: dict[str, Any]) -> int:
    """How many episodes a part has, rejected ones among them."""
    return report["episodes"] + len(report["rejected"])


class Allowance:
    """Counts rejected episodes; `count` raises a UserError once there are more than permitted."""

    def __init__(self, dataset: RldsDataset, card: Card, split: str, limit: float):
        self._dataset, self._card, self._limit = dataset, card, limit
        self._total = dataset.split(split).num_episodes
        self._most = limit * self._total if limit < 1 else limit
        self._reasons: collections.Counter[str] = collections.Counter()
        self._seen = 0

    @property
    def rejected(self) -> int:
        return self._reasons.total()

    def count(self, report: dict[str, Any]) -> None:
        """Add a part's rejected episodes."""
        self._seen += episodes_in(report)
        self._reasons.update(entry["reason"] for entry in report["rejected"])
        if self._most < self.rejected < self._total:
            raise UserError(
                f"{self._dataset.directory}: {self.rejected:,} of the first {self._seen:,} "
                f"episodes were rejected, more than --max_rejected={self._limit:g} permits: "
                f"{self._counts()}"
            )

    def all_rejected(self) -> str:
        """The error when nothing is left."""
        return (
            f"{self._dataset.directory}: all {self._total:,} episodes were rejected: "
            f"{self._counts()}; check the conventions in {self._card.path}"
        )

    def _counts(self) -> str:
        return ", ".join(f"{reason} ({count:,})" for reason, count in self._reasons.most_common())


def inputs_of(dataset: RldsDataset, card: Card, split: str, clouds: bool) -> dict[str, Any]:
    """What the parts are made from, apart from the shards, of which each part has a stamp."""
    return {
        "program": f"{__version__}, schema {SCHEMA_VERSION}",
        "card": card.sha256,
        "split": split,
        "clouds": clouds,
        **{
            name: hashlib.sha256(files.read_bytes(files.join(dataset.directory, name))).hexdigest()
            for name in ("dataset_info.json", "features.json")
        },
    }


def facts_of(
    dataset: RldsDataset, card: Card, split: str, reports: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What the manifest says besides the counts, the statistics and the columns."""
    rejected = [entry for report in reports for entry in report["rejected"]]
    flagged = [entry for report in reports for entry in report["flagged"]]
    evidence = no_evidence(card)
    for report in reports:  # in order: sums of floats depend on it
        evidence += report["evidence"]
    return {
        "card": card.name,
        "card_sha256": card.sha256,
        "base_z_up": card.base_z_up,
        "tool_frame": card.tool_frame,
        "source": {
            "dataset": dataset.name,
            "version": dataset.version,
            "split": split,
            "files": [os.path.basename(file) for file in dataset.splits[split].files],
        },
        "rejected": dict(collections.Counter(entry["reason"] for entry in rejected)),
        "rejected_episodes": rejected,
        "flagged": dict(collections.Counter(flag for entry in flagged for flag in entry["flags"])),
        "flagged_episodes": flagged,
        "recorded": card.recorded,
        "rotation_check": judge(card, evidence),
        "keyframe_tolerance": KEYFRAME_TOLERANCE,
    }
