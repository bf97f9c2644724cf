"""A tiny store with clouds and a tiny config, to train in seconds."""

import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.datasets.episode import CLOUD_SHAPE, Episode
from bridgeact_jax.datasets.store import StoreWriter

CONFIG = "--config=configs/demo.py:pretrain"
TINY = (
    "--config.batch_size=16", "--config.log_every=2", "--config.checkpoint_every=2",
    "--config.model.widths=(8,16)", "--config.model.condition=16", "--config.model.points=16",
    "--config.model.point_widths=(8,16)", "--config.model.keypoints=2", "--config.data.history=16",
    "--config.optimizer.warmup_steps=1",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """Six episodes of a hand that closes halfway along a random line, with random clouds."""
    path = tmp_path_factory.mktemp("data") / "store"
    rng = np.random.default_rng(0)
    with StoreWriter(path, with_cloud=True) as writer:
        for _ in range(6):
            start, end = rng.uniform(-0.2, 0.2, (2, 3))
            along = np.linspace(0, 1, 20)[:, None]
            episode = Episode(
                time=np.arange(20) / 10,
                position=(start + along * (end - start)).astype(np.float32),
                rotation=np.tile([1.0, 0, 0, 0], (20, 1)).astype(np.float32),
                gripper=(np.arange(20) < 10).astype(np.float32),
                gripper_width=np.full(20, np.nan, np.float32),
                cloud=rng.uniform(-0.3, 0.3, (20, *CLOUD_SHAPE)).astype(np.float16),
            )
            writer.append(episode, np.array([0, 10, 19]))
        writer.finish(card="test")
    return path


def command(*words: object, tiny: bool = True) -> list[str]:
    """A `bridgeact` command line that this interpreter runs."""
    return [sys.executable, "-m", "bridgeact_jax.cli", *map(str, words), *(TINY if tiny else ())]


def run(*words: object, env=None, check: bool = True) -> subprocess.CompletedProcess:
    """Run a command to its end; in a process of its own where its environment differs."""
    if env is not None:
        line = command(*words)
        result = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **env})
    else:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(["bridgeact", *map(str, words), *TINY])
        result = subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="session")
def pretrained(tiny_store, tmp_path_factory):
    """An undisturbed run of 12 steps."""
    workdir = tmp_path_factory.mktemp("run") / "undisturbed"
    run("pretrain", CONFIG, f"--store={tiny_store}", f"--workdir={workdir}", "--config.steps=12")
    return workdir


def figures(workdir) -> list[dict]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
