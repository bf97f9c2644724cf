"""Figures of a run: `metrics.jsonl`, one object a line, and TensorBoard events beside it."""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np
from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from bridgeact_jax.errors import UserError


class MetricsWriter:
    """Adds to a run's figures. On resume at `first_step`, later lines are dropped first.

    The file is replaced as a whole each time, which is atomic and works on object stores too.
    """

    def __init__(self, workdir: epath.Path, first_step: int, config: ml_collections.ConfigDict):
        """Where `config.wandb` names a project, Weights & Biases receives the figures too."""
        self._path = workdir / "metrics.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._lines = [line for line in lines if json.loads(line)["step"] <= first_step]
        with self._writing():
            (workdir / "tensorboard").mkdir(parents=True, exist_ok=True)
            # Without a thread of its own, so that a full disk is found here.
            self._events = EventsWriter(str(workdir / "tensorboard/events"))
            restart = SessionLog(status=SessionLog.START)  # later steps are forgotten
            self._events.write_event(Event(step=first_step + 1, session_log=restart))
        self._wandb = _wandb_run(workdir, config) if config.wandb else None

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Write the figures of a step; names become keys and TensorBoard tags.

        Raises UserError if the disk is full or the folder not writable.
        """
        self._lines.append(json.dumps({"step": step, **figures}))
        partial = self._path.with_name(self._path.name + ".partial")
        with self._writing():
            partial.write_text("\n".join(self._lines) + "\n")
            partial.replace(self._path)
            for name, value in figures.items():
                summary = scalar(name, value)
                self._events.write_event(Event(step=step, wall_time=time.time(), summary=summary))
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log(figures, step=step)

    def close(self) -> None:
        """Flush the events."""
        with self._writing():
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error.strerror}") from None


def _wandb_run(workdir: epath.Path, config: ml_collections.ConfigDict):
    import wandb

    return wandb.init(
        project=config.wandb,
        name=workdir.name,
        id=uuid.uuid5(uuid.NAMESPACE_URL, str(workdir)).hex,  # so that a resumed run goes on
        resume="allow",
        dir=str(workdir),
        config=config.to_dict(),
    )


class Profiler:
    """A trace of the steps `first` to `last` for TensorBoard's profiler, in `folder`."""

    def __init__(self, folder: epath.Path, steps: tuple[int, int]):
        self._folder, (self._first, self._last) = folder, steps
        self._running = False

    def __enter__(self) -> "Profiler":
        return self

    def before(self, step: int) -> None:
        """Begin the trace if this is its first step."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, result) -> None:
        """End the trace if this was its last step, once `result` is there."""
        if self._running and step == self._last:
            jax.block_until_ready(result)
            self.__exit__()

    def __exit__(self, *_: object) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


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
