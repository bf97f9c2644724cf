"""A step that is not finite: which windows it learned from."""

import json

import jax
import numpy as np
from etils import epath

from bridgeact_jax.datasets.loader import Windows, WindowSampler
from bridgeact_jax.errors import UserError

FILE = "not_finite.json"
SHOWN = 4


def stop(step: int, sampler: WindowSampler, rows: np.ndarray, workdir: epath.Path) -> UserError:
    """The error that names the batch behind a step whose update is not finite.

    `rows` (B,) are the batch's current frames. Every window at fault, or the whole batch where all
    are finite, is listed in the run's folder.
    """
    bad = ~finite_windows(sampler.gather(rows))
    blamed = rows[bad] if bad.any() else rows
    windows = [
        {"dataset": dataset, "episode": int(episode), "row": int(row)}
        for dataset, episode, row in zip(*sampler.locate(np.unique(blamed)), strict=True)
    ]
    path = workdir / FILE
    if jax.process_index() == 0:
        path.write_text(json.dumps({"step": step, "windows": windows}, indent=1) + "\n")
    form = "{dataset}, episode {episode}, row {row}"
    named = "; ".join(form.format(**window) for window in windows[:SHOWN])
    named += f" and {len(windows) - SHOWN} more in {path}" if len(windows) > SHOWN else ""
    if bad.any():
        cause = f"the batch has windows that are not finite: {named}; convert that store again"
    else:
        cause = (
            "the batch is finite, so training diverged: lower config.optimizer.learning_rate, or "
            f"inspect what it learned from: {named}"
        )
    return UserError(f"not finite at step {step}: {cause}; the last checkpoint is kept")


def finite_windows(windows: Windows) -> np.ndarray:
    """(B,) bool: whether a window's numbers are finite. An unmeasured gripper width is NaN."""
    finite = np.ones(len(windows.steps), bool)
    for name, column in windows._asdict().items():
        if column is not None and name != "gripper_width":
            finite &= np.isfinite(column.reshape(len(finite), -1)).all(axis=1)
    return finite
