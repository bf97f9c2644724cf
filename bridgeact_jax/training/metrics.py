"""Figures of a run: `metrics.jsonl`, one object a line, and TensorBoard events beside it."""

import json

from etils import epath
from tensorboardX import SummaryWriter


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
        """Write the figures of a step; names become keys and TensorBoard tags."""
        self._lines.append(json.dumps({"step": step, **figures}))
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text("\n".join(self._lines) + "\n")
        partial.replace(self._path)
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._events.close()
