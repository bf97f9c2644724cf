"""Work for several processes, all on the CPU: simulation and data leave accelerators alone."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from bridgeact_jax.errors import UserError

AHEAD = 4  # jobs a process is given before the oldest result is taken
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    one_thread: bool = False,
) -> Iterator[Result]:
    """`function` of each job, in the order of `jobs`; with one worker in this process.

    At most `AHEAD * workers` jobs are under way, so that memory does not grow with their number.
    Closing the iterator, an exception in a job or the end of this process ends the processes at
    once. Raises UserError if one of them dies.

    Args:
      one_thread: JAX computes in a single thread in each process.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from _map_here(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    lifeline, held_here = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _prepare, (lifeline, one_thread))
    pending = deque()
    try:
        for job in jobs:
            pending.append(executor.submit(function, job))
            if len(pending) == AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise UserError("a worker process died (out of memory?): use fewer --workers") from None
    finally:
        held_here.close()
        executor.shutdown(cancel_futures=True)
        lifeline.close()


def _map_here(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
    import jax

    for job in jobs:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            result = function(job)
        yield result


def _prepare(lifeline: Connection, one_thread: bool) -> None:
    """Set up a worker process: JAX on the CPU, its end left to its owner, also at Ctrl-C."""
    if one_thread:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}"
    import jax

    jax.config.update("jax_platforms", "cpu")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_owner, args=(lifeline,), daemon=True).start()


def _end_with_owner(lifeline: Connection) -> None:
    lifeline.poll(None)  # until the other end is closed
    os._exit(1)
