"""Figures of a run: `metrics.jsonl`, one object a line, and TensorBoard events beside it."""

import contextlib
import json
import time
from collections.abc import Iterator

import numpy as np
from etils import epath
from tensorboardX import SummaryWriter

from bridgeact_jax.errors import UserError


class MetricsWriter:
    """Adds to a run's figures. On resume at `first_step`, later lines are dropped first.

    The file is replaced as a whole each time, which is atomic and works on object stores too.
    """

    def __init__(self, workdir: epath.Path, first_step: int):
        self._path = workdir / "metrics.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._lines = [line for line in lines if json.loads(line)["step"] <= first_step]
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Write the figures of a step; names become keys and TensorBoard tags.

        Raises UserError if the disk is full or the folder not writable.
        """
        self._lines.append(json.dumps({"step": step, **figures}))
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            partial.write_text("\n".join(self._lines) + "\n")
            partial.replace(self._path)
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error.strerror}") from None
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._events.close()


class Stopwatch:
    """Times steps: how long each took, and how much of it the loop waited for data.

    What lies between two steps (checkpoints, compilation) belongs to none.
    """

    def __init__(self, batch_size: int, devices: int):
        self._batch_size, self._devices = batch_size, devices
        self._began = time.monotonic()
        self._productive, self._waited = 0.0, 0.0
        self._seconds: list[float] = []

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around one step, from its data to the wait for its result."""
        start = time.monotonic()
        yield
        self._seconds.append(time.monotonic() - start)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for the next batch, inside a step."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def figures(self) -> dict[str, float]:
        """Rates and times since the last call; `goodput_percent` since the beginning.

        Goodput is the share of the time in which steps ran.
        """
        taken = sum(self._seconds)
        self._productive += taken
        median, slow = np.percentile(self._seconds, [50, 95])
        rate = self._batch_size * len(self._seconds) / taken
        figures = {
            "samples_per_second": rate,
            "samples_per_second_per_device": rate / self._devices,
            "input_stall_percent": 100 * self._waited / taken,
            "step_ms_p50": 1e3 * float(median),
            "step_ms_p95": 1e3 * float(slow),
            "goodput_percent": 100 * self._productive / (time.monotonic() - self._began),
        }
        self._seconds, self._waited = [], 0.0
        return figures
