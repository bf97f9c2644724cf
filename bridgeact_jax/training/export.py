"""A checkpoint as one plain directory: EMA weights, statistics, config and model card.

The directory serves wherever a command takes --checkpoint, and is read without Orbax. With
--jax_export it also holds the sampler as a serialised function for each platform.
"""

import os
import shutil
from pathlib import Path

import jax
from absl import flags

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.files import write_bytes, write_text
from bridgeact_jax.training import exported
from bridgeact_jax.training.checkpoint import describe, load_expert
from bridgeact_jax.training.jax_export import PLATFORMS, serialise
from bridgeact_jax.training.model_card import card_text


def define_flags() -> None:
    """Flags of `bridgeact export`."""
    flags.DEFINE_string("checkpoint", None, "workdir of a training run, or an exported directory")
    flags.DEFINE_string("out", None, "the directory to make")
    flags.DEFINE_enum("dtype", "float32", list(exported.DTYPES), "of the stored weights")
    flags.DEFINE_string("card", None, "Markdown file to add to the model card")
    flags.DEFINE_bool(
        "jax_export", False, f"also write a serialised function for {', '.join(PLATFORMS)}"
    )
    flags.mark_flags_as_required(["checkpoint", "out"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact export`."""
    del argv
    args = flags.FLAGS
    files = export(
        args.checkpoint, args.out, dtype=args.dtype, card=args.card, jax_export=args.jax_export
    )
    for path in files:
        print(f"{path}: {path.stat().st_size:,} bytes")


def export(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: str = "float32",
    card: str | os.PathLike | None = None,
    jax_export: bool = False,
) -> list[Path]:
    """Write the directory `out`, whole or not at all; returns its files.

    Args:
      checkpoint: workdir of a run, whose latest checkpoint is taken, or an exported directory.
      dtype: "float32" or "bfloat16", of the stored weights.
      card: a Markdown file, which ends the model card.

    Raises UsageError if `out` holds something, UserError for what cannot be read or written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"export: --out={out} holds something already: choose another")
    added = _read_card(card) if card else ""
    origin = describe(checkpoint)
    _, _, params, normalizer = load_expert(checkpoint)
    params, normalizer = jax.device_get((params, normalizer))
    tensors = exported.tensors_of(params, normalizer, dtype)
    weights = exported.weights_bytes(tensors)
    count = sum(x.size for x in jax.tree.leaves(params))
    functions = (
        {f"expert.{name}.jaxexport": serialise(origin.config, tensors, name) for name in PLATFORMS}
        if jax_export else {}
    )
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for name, content in functions.items():
            write_bytes(partial / name, content)
        write_bytes(partial / exported.WEIGHTS, weights)
        write_text(partial / exported.CONFIG, exported.config_text(origin, dtype, weights))
        write_text(partial / exported.CARD, card_text(origin, count, dtype, list(functions), added))
        partial.replace(out)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be made: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(out.iterdir())


def _read_card(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--card={path}: cannot be read: {error}") from None
