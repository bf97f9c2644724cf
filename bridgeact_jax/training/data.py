"""What a run learns from: one store or a mixture of them, and the record of it."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.datasets.mixture import Mixture, load_mixture, open_stores
from bridgeact_jax.datasets.store import TrajectoryStore, open_store
from bridgeact_jax.datasets.trajectories import Trajectories, resample
from bridgeact_jax.errors import UsageError
from bridgeact_jax.models.action_expert import ExpertConfig

SHARES = "mixture.json"


class TrainingData(NamedTuple):
    """sampler: of the stream. source: what a checkpoint says of the data, as JSON.

    source["store"]: a store's checksums, or None. source["mixture"]: a mixture's datasets with
    weight, sizes, the probability of drawing from each and checksums, or None.
    """

    sampler: WindowSampler
    source: dict[str, Any]

    @property
    def datasets(self) -> tuple[str, ...]:
        """What the sampler's stores are called."""
        mixture = self.source["mixture"]
        return tuple(mixture["datasets"]) if mixture else ("the store",)

    def shares(self) -> str:
        """The mixture as a table; empty for a single store."""
        mixture = self.source["mixture"]
        return _table(mixture) if mixture else ""

    def write_shares(self, workdir: epath.Path) -> None:
        """Write the mixture into the run's folder; nothing for a single store."""
        mixture = self.source["mixture"]
        if mixture:
            partial = workdir / f"{SHARES}.partial"
            partial.write_text(json.dumps(mixture, indent=2, ensure_ascii=False) + "\n")
            partial.replace(workdir / SHARES)


def open_data(
    config: ml_collections.ConfigDict,
    model: ExpertConfig,
    *,
    store: epath.PathLike | None = None,
    mixture: epath.PathLike | None = None,
    stores: epath.PathLike | None = None,
) -> TrainingData:
    """The windows of `store`, or of a `mixture` whose stores lie in the folder `stores`.

    `store` may be several with commas between: parts of one collection, drawn by their steps.
    Raises UsageError unless exactly one is given, UserError for data that is missing or unfit.
    """
    if (store is None) == (mixture is None) or (mixture is None) != (stores is None):
        raise UsageError("give either --store=STORE, or --mixture=NAME with --stores=DIR")
    parts = [] if store is None else os.fspath(store).split(",")
    if mixture is not None:
        chosen = load_mixture(mixture)
    else:
        chosen = _together(parts) if len(parts) > 1 else None
    opened = open_stores(chosen, stores) if mixture is not None else [open_store(p) for p in parts]
    trajectories = [resample(one) for one in opened]
    probability = None if chosen is None else chosen.probability(opened)
    sampler = WindowSampler(
        *trajectories,
        probability=probability,
        horizon=model.horizon,
        history=config.data.history,
        waypoints=config.data.waypoints,
        contact_weight=config.data.contact_weight,
        with_cloud=config.use_cloud,
    )
    if chosen is None:
        return TrainingData(sampler, {"store": _checksums(opened[0]), "mixture": None})
    record = _record(chosen, opened, trajectories, probability)
    return TrainingData(sampler, {"store": None, "mixture": record})


def _together(stores: Sequence[str]) -> Mixture:
    """Stores given one by one, as a mixture of their steps, by their folders' names."""
    names = [os.path.basename(store.rstrip("/")) for store in stores]
    if len(set(names)) < len(names):
        raise UsageError(f"--store={','.join(stores)}: every store needs another folder name")
    return Mixture("of the stores given", "", "", "steps", dict.fromkeys(names, 1.0), {})


def _checksums(store: TrajectoryStore) -> dict[str, str]:
    return {name: column["sha256"] for name, column in store.manifest["columns"].items()}


def _record(
    mixture: Mixture,
    stores: Sequence[TrajectoryStore],
    trajectories: Sequence[Trajectories],
    probability: Sequence[float],
) -> dict[str, Any]:
    return {
        "name": mixture.name,
        "weights": mixture.weights,
        "datasets": {
            name: {
                "weight": weight,
                "probability": float(share),
                "episodes": store.manifest["episodes"],
                "steps": store.manifest["steps"],
                "windows": path.num_windows,
                "sha256": _checksums(store),
            }
            for (name, weight), share, store, path in zip(
                mixture.datasets.items(), probability, stores, trajectories, strict=True
            )
        },
        "left_out": mixture.left_out,
    }


def _table(mixture: dict[str, Any]) -> str:
    datasets = mixture["datasets"]
    width = max(map(len, datasets))
    lines = [
        f"mixture {mixture['name']}, weights {mixture['weights']}:",
        f"  {'dataset':{width}} {'weight':>8} {'drawn':>9} {'episodes':>10} {'steps':>12} "
        f"{'at 10 Hz':>12}",
    ]
    lines += [
        f"  {name:{width}} {one['weight']:>8.4g} {one['probability']:>9.3%} {one['episodes']:>10,} "
        f"{one['steps']:>12,} {one['windows']:>12,}"
        for name, one in datasets.items()
    ]
    lines += [f"  left out: {name}: {reason}" for name, reason in mixture["left_out"].items()]
    return "\n".join(lines)
