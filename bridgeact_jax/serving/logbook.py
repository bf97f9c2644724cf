"""What was served, written down beside the server: a slow disk delays no answer."""

import queue
import threading
from collections import Counter

from bridgeact_jax.serving.observations import Request
from bridgeact_jax.serving.rerun_log import RerunLog
from bridgeact_jax.serving.sessions import Step

WAITING = 256  # steps that may wait; what is more is left out


class Logbook:
    """Writes what was answered to a `RerunLog`, in a thread of its own.

    Attributes:
      left_out: how many steps did not find room.
    """

    def __init__(self, log: RerunLog):
        self._log, self._steps, self.left_out = log, Counter(), 0
        self._waiting: queue.Queue[tuple | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="logbook", daemon=True)
        self._thread.start()

    def note(self, stream: str, request: Request, step: Step) -> None:
        """Write down what `stream` was answered, or leave it out."""
        try:
            self._waiting.put_nowait((stream, request.time, request.position, step))
        except queue.Full:
            self.left_out += 1

    def close(self) -> None:
        """Write what waits, say what was left out, and close the log."""
        self._waiting.put(None)
        self._thread.join()
        self._log.close()
        if self.left_out:
            print(f"the log lacks {self.left_out} steps: it was written too slowly or not at all")

    def _work(self) -> None:
        while (noted := self._waiting.get()) is not None:
            stream, time, position, step = noted
            try:
                self._log.step(
                    stream, self._steps[stream], time=time, position=position, cloud=step.cloud,
                    guidance=step.guidance, actions=step.actions,
                )  # fmt: skip
            except Exception:  # the disk's or the library's: the server goes on without
                self.left_out += 1
            self._steps[stream] += 1
