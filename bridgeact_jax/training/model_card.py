"""The model card of an exported checkpoint."""

from collections.abc import Sequence

import ml_collections

from bridgeact_jax.datasets.cards import card_paths, load_card
from bridgeact_jax.training.config import expert_config
from bridgeact_jax.training.exported import CONFIG, WEIGHTS, Origin

UNITS = {"validation_position_mm": "mean distance of sampled chunks from the truth, mm"}


def card_text(
    origin: Origin, parameters: int, dtype: str, functions: Sequence[str], added: str
) -> str:
    """The text of README.md.

    Args:
      parameters: their number; dtype: as which they are stored.
      functions: names of the serialised functions beside the weights.
      added: Markdown that ends the card.
    """
    config, model = origin.config, expert_config(origin.config)
    plan = ["a plan's waypoints"] if config.dropout.guidance < 1 else []
    cloud = ["a local point cloud"] if config.use_cloud else []
    *inputs, last = [*plan, *cloud, "the arm's state"]
    told = f"{', '.join(inputs)} and {last}" if inputs else last
    sees = "trajectories with local point clouds" if config.use_cloud else "trajectories only"
    lines = [
        "---",
        "library_name: bridgeact_jax",
        "pipeline_tag: robotics",
        "---",
        "",
        "# Action expert",
        "",
        f"A diffusion policy that turns {told} into "
        f"end-effector motion: {model.horizon} targets, 0.1 s apart, relative to the current pose "
        "in base axes. It learns motion, not tasks.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {parameters:,}, exponential averages, stored as {dtype} |",
        f"| learned from | {sees} |",
        f"| training | step {origin.step:,} of {config.steps:,}, {config.batch_size:,} windows a "
        "step |",
        f"| cloud | {_cloud(origin)} |",
        f"| noise | {_listed(config.noise)} |",
        *(f"| {_named(name)} | {value:.4g} |" for name, value in origin.scores.items()),
        "",
        "Validation is on held-out episodes of the training data.",
        "",
        "## Use",
        "",
        "```",
        "bridgeact evaluate --checkpoint=THIS_DIRECTORY --suite=lift --out=DIR",
        "bridgeact serve --checkpoint=THIS_DIRECTORY",
        "```",
        "",
        f"`{WEIGHTS}` holds the weights and the normalizer of actions, `{CONFIG}` the whole "
        "training configuration and the checksums of the data. In Python: "
        "`bridgeact_jax.training.checkpoint.load_expert(THIS_DIRECTORY)`.",
        "",
    ]
    if functions:
        names = ", ".join(f"`{name}`" for name in functions)
        lines += [
            f"{names}: the sampler, serialised by `jax.export` for any batch size. "
            "`jax.export.deserialize(...).call(tensors, proprio, window, focus, points, "
            f"point_mask, keys)` takes the tensors of `{WEIGHTS}`, the parts of an observation and "
            f"(B, 2) uint32 PRNG keys; the result is (B, {model.horizon}, 10).",
            "",
        ]
    lines += ["## Data", "", *_data(origin)]
    return "\n".join(lines) + "\n" + (f"\n{added.strip()}\n" if added.strip() else "")


def _cloud(origin: Origin) -> str:
    model = origin.config.model
    if not origin.config.use_cloud:
        return "not seen"
    return f"{model.points} points within {model.crop_radius} m of the hand"


def _listed(options: ml_collections.ConfigDict) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(options.items()))


def _named(name: str) -> str:
    return UNITS.get(name, name.replace("_", " "))


def _data(origin: Origin) -> list[str]:
    mixture = origin.source["mixture"]
    if mixture is None:
        return [f"One trajectory store; the checksums of its columns are in `{CONFIG}`."]
    rows = [
        f"| {name} | {part['probability']:.2%} | {part['episodes']:,} | {part['steps']:,} "
        f"| {_licence(name)} |"
        for name, part in mixture["datasets"].items()
    ]
    return [
        f"Mixture: {mixture['name']}.",
        "",
        "| dataset | drawn | episodes | steps | licence |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _licence(name: str) -> str:
    return load_card(name).licence if name in card_paths() else "see its source"
