"""A tiny model and tiny data, for tests."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from etils import epath

from bridgeact_jax.models.normalizer import identity
from bridgeact_jax.training.start import open_for_writing
from bridgeact_jax.vla.model import initial_params
from bridgeact_jax.vla.settings import base_config
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.step import initial_state
from bridgeact_jax.vla.tokenizer import decode
from tests.parameters import drawn

SIZES = {
    "picture": (16, 24), "text_length": 24, "width": 16, "layers": 2, "heads": 2, "mlp_width": 24,
    "experts": 4, "queries": 2, "horizon": 4, "head_width": 16, "head_layers": 4, "head_heads": 2,
    "vocabulary": 448,
}  # fmt: skip
FLAGS = tuple(
    f"--config.model.{name}={','.join(map(str, v)) if isinstance(v, tuple) else v}".replace(
        "=16,24", "=(16,24)"
    )
    for name, v in SIZES.items()
)


def tiny(**changes) -> VlaConfig:
    """The sizes, but for `changes`."""
    return VlaConfig(**{**SIZES, **changes})


def tiny_config(**changes):
    """A training configuration of the tiny model."""
    config = base_config()
    config.model.update(SIZES)
    config.update({"batch_size": 8, "noise_draws": 2, "log_every": 1, **changes})
    config.optimizer.warmup_steps = 1
    config.validation.windows = 8
    return config


def random_params(model: VlaConfig, seed: int = 0) -> dict:
    """Parameters none of which is zero."""
    return drawn(jax.eval_shape(lambda: initial_params(model, jax.random.key(0))), seed)


def save(workdir: Path, model: VlaConfig, *, acts: bool = True) -> Path:
    """A checkpoint of a model that has learned nothing, its head as if it had been trained."""
    config = tiny_config()
    config.model.update(dataclasses.asdict(model))
    normalizer = jax.tree.map(np.asarray, identity())
    if acts:
        normalizer = normalizer._replace(scale=np.full(10, 0.1, np.float32))
    shapes = jax.eval_shape(
        lambda: initial_state(config, initial_params(model, jax.random.key(0)), identity())
    )
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(0.2 * rng.normal(size=x.shape)), shapes.params)
    state = state._replace(params=params, ema=params, normalizer=normalizer)
    with open_for_writing(epath.Path(workdir), keep=1) as checkpoints:
        checkpoints.save(config.steps, state, config, {"init": None})
    return workdir


def pictures(count: int, model: VlaConfig, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *model.picture, 3), np.uint8)


def texts(rng: np.random.Generator, count: int, length: int) -> list[str]:
    """Texts of `length` digits and signs."""
    return [decode(rng.integers(4, 20, length)) for _ in range(count)]


def write_imagetext(path: Path, count: int = 12, kind: str = "imagetext") -> Path:
    """A folder of random pictures and questions."""
    rng = np.random.default_rng(0)
    rows = zip(texts(rng, count, 5), texts(rng, count, 4), strict=True)
    _write(path, "imagetext", pictures(count, tiny()), kind)
    lines = [json.dumps({"question": q, "answer": a, "group": "any"}) for q, a in rows]
    (path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return path


def write_robot(path: Path, lengths: tuple[int, ...] = (6, 3, 5)) -> Path:
    """A folder of episodes along random lines; the last is not of the training split."""
    rng, count = np.random.default_rng(1), sum(lengths)
    _write(path, "robot", pictures(count, tiny(), 1), "math")
    position = np.cumsum(rng.normal(scale=0.01, size=(count, 3)), axis=0) + [0.4, 0, 0.2]
    rotation = np.array([0, 1, 0, 0]) + rng.normal(scale=0.02, size=(count, 4))
    columns = {
        "position": position.astype(np.float32),
        "rotation": np.float32(rotation / np.linalg.norm(rotation, axis=1, keepdims=True)),
        "gripper": rng.integers(0, 2, count).astype(np.float32),
        "gripper_width": rng.uniform(size=count).astype(np.float32),
    }
    for name, values in columns.items():
        np.save(path / f"{name}.npy", values)
    first = np.cumsum((0, *lengths[:-1]))
    splits = ["train"] * (len(lengths) - 1) + ["open"]
    words = zip(texts(rng, len(lengths), 4), texts(rng, len(lengths), 9), strict=True)
    lines = [
        json.dumps(
            {"task": "any", "split": split, "instruction": say, "reasoning": think,
             "first": int(start), "length": length, "facts": {}}
        )
        for split, start, length, (say, think) in zip(splits, first, lengths, words, strict=True)
    ]  # fmt: skip
    (path / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    return path


def _write(path: Path, kind: str, shown: np.ndarray, made: str) -> None:
    path.mkdir()
    manifest = {"schema_version": 1, "kind": kind, "picture": shown.shape[1:3], "seed": 0}
    manifest |= {"options": {"kind": made}, "counts": {}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    np.save(path / "pictures.npy", shown)
