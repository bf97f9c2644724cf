"""Several clients' requests in one computation, in a thread beside the event loop."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Late(Exception):
    """The answer was not there by its deadline."""


class _Job(NamedTuple):
    item: Any
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future


class Batcher:
    """Hands what is waiting, oldest first, to `process`, in one thread.

    Args:
      process: (items) -> as many results, in order; an exception as result is raised for its
        item. Called from one thread only.
      largest: items of a call.
    """

    def __init__(self, process: Callable[[Sequence[Any]], Sequence[Any]], largest: int):
        self._process, self._largest = process, largest
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def submit(self, item: Any, deadline: float) -> Any:
        """The result for `item`. Raises Late once `time.monotonic()` has passed `deadline`.

        An item that has not been begun by then, or whose caller is cancelled, is never processed.
        """
        loop = asyncio.get_running_loop()
        job = _Job(item, deadline, loop, loop.create_future())
        with self._changed:
            if not self._open:
                raise Late
            self._waiting.append(job)
            self._changed.notify()
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                return await job.future
        except TimeoutError:
            raise Late from None
        finally:
            del job  # its exception knows this frame: a circle would keep the item for long

    def close(self) -> None:
        """Finish what is being processed; what waits is dropped."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._open and not self._waiting:
                    self._changed.wait()
                if not self._open:
                    return
                count = min(self._largest, len(self._waiting))
                jobs = [self._waiting.popleft() for _ in range(count)]
            now = time.monotonic()
            jobs = [job for job in jobs if not job.future.cancelled() and now < job.deadline]
            if jobs:
                self._finish(jobs)

    def _finish(self, jobs: list[_Job]) -> None:
        try:
            results = self._process([job.item for job in jobs])
        except Exception as error:  # a fault of ours: every caller shall know
            results = [error] * len(jobs)
        for job, result in zip(jobs, results, strict=True):
            job.loop.call_soon_threadsafe(_settle, job.future, result)


def _settle(future: asyncio.Future, result: Any) -> None:
    if future.done():  # its caller has gone, or its time has passed
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
