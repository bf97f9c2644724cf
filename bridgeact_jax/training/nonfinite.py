"""Steps that are not finite: which windows they learned from, and how many are skipped."""

import json
import sys
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np
from etils import epath

from bridgeact_jax.datasets.loader import Windows, WindowSampler
from bridgeact_jax.errors import UserError

FILE = "not_finite.json"
SHOWN = 4


class NotFinite:
    """The account of a run's steps that were not finite, in `workdir/not_finite.json`.

    Such a step changes nothing but the count, so that going on is to skip its batch. On resume at
    `first_step`, later steps are forgotten.
    """

    def __init__(
        self,
        sampler: WindowSampler,
        config: ml_collections.ConfigDict,
        workdir: epath.Path,
        first_step: int,
        finite: Callable[..., np.ndarray] | None = None,
    ):
        """`finite` tells of which samples of a gathered batch all numbers are finite, (B,) bool;
        by default `finite_windows`.
        """
        self._sampler, self._config = sampler, config
        self._finite = finite or finite_windows
        self._path = workdir / FILE
        found = json.loads(self._path.read_text()) if self._path.exists() else []
        self._found = [one for one in found if one["step"] <= first_step]

    def check(self, step: int, finite: Sequence[bool]) -> None:
        """Note those that are not `finite` of the steps up to `step`.

        Every window at fault, or the whole batch where all are finite, is listed in the file.
        Raises UserError for the first that `config.skip_nonfinite` does not allow.
        """
        for one, fine in enumerate(finite, start=step - len(finite) + 1):
            if not fine:
                self._note(one)

    def _note(self, step: int) -> None:
        config = self._config
        rows = self._sampler.rows(config.seed, step - 1, config.batch_size)
        bad = ~self._finite(self._sampler.gather(rows))
        blamed = rows[bad] if bad.any() else rows
        windows = [
            {"dataset": dataset, "episode": int(episode), "row": int(row)}
            for dataset, episode, row in zip(*self._sampler.locate(np.unique(blamed)), strict=True)
        ]
        self._found.append({"step": step, "windows": windows})
        first_process = jax.process_index() == 0
        if first_process:
            self._write()
        form = "{dataset}, episode {episode}, row {row}"
        named = "; ".join(form.format(**window) for window in windows[:SHOWN])
        if len(windows) > SHOWN:
            named += f" and {len(windows) - SHOWN} more in {self._path}"
        if bad.any():
            cause = f"the batch has windows that are not finite: {named}; convert that store again"
        else:
            cause = (
                "the batch is finite, so training diverged: lower config.optimizer.learning_rate, "
                f"or inspect what it learned from: {named}"
            )
        count, allowed = len(self._found), config.skip_nonfinite
        if count > allowed:
            skipped = f" (after {count - 1} that were skipped)" if count > 1 else ""
            raise UserError(
                f"not finite at step {step}{skipped}: {cause}; the last checkpoint is kept"
            )
        if first_process:
            print(
                f"not finite at step {step}, skipped ({count} of {allowed}): {cause}",
                file=sys.stderr,
                flush=True,
            )

    def _write(self) -> None:
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            partial.write_text(json.dumps(self._found, indent=1) + "\n")
            partial.replace(self._path)
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error.strerror}") from None


def finite_windows(windows: Windows) -> np.ndarray:
    """(B,) bool: whether a window's numbers are finite. An unmeasured gripper width is NaN."""
    finite = np.ones(len(windows.steps), bool)
    used = {"history": windows.steps, "plan": windows.waypoint_count}  # the rest means nothing
    for name, column in windows._asdict().items():
        if column is None or name == "gripper_width":
            continue
        fine = np.isfinite(column.reshape(*column.shape[:2], -1)).all(axis=-1)
        if name in used:
            fine |= np.arange(column.shape[1]) >= used[name][:, None]
        finite &= fine.reshape(len(finite), -1).all(axis=1)
    return finite
