"""What was served, written down beside the server: a slow disk delays no answer."""

import queue
import threading
from typing import NamedTuple

import numpy as np

from bridgeact_jax.serving.rerun_log import RerunLog

WAITING = 256  # steps that may wait; what is more is left out


class Entry(NamedTuple):
    """One answered observation of client `stream`, its `number` from 0; as `RerunLog.step`."""

    stream: str
    number: int
    time: float | None
    position: np.ndarray
    cloud: np.ndarray | None
    guidance: np.ndarray | None
    actions: np.ndarray


class Logbook:
    """Writes entries to a `RerunLog` in a thread of its own.

    Attributes:
      left_out: how many did not find room.
    """

    def __init__(self, log: RerunLog):
        self._log, self.left_out = log, 0
        self._waiting: queue.Queue[Entry | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="logbook", daemon=True)
        self._thread.start()

    def write(self, entry: Entry) -> None:
        """Note down an entry, or leave it out."""
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self.left_out += 1

    def close(self) -> None:
        """Write what waits, and close the log."""
        self._waiting.put(None)
        self._thread.join()
        self._log.close()

    def _work(self) -> None:
        while (entry := self._waiting.get()) is not None:
            stream, number, *_ = entry
            self._log.step(
                stream, number, time=entry.time, position=entry.position, cloud=entry.cloud,
                guidance=entry.guidance, actions=entry.actions,
            )  # fmt: skip
