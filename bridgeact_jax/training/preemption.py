"""Being told to go: SIGTERM, the notice that a machine will be taken away, the loss of a peer."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from bridgeact_jax.errors import UserError

SILENCE = 30  # seconds without a sign of life after which a process counts as dead
LAST_WAIT = 60  # seconds for the other processes to come to their end


class Stopped(UserError):
    """A run that was told to end and has saved its state."""

    exit_status = 128 + signal.SIGTERM  # what a shell reports, and schedulers expect


class Notice:
    """Catches SIGTERM while it is entered; `reached` tells whether to save and end.

    Of several processes all poll equally often and learn of it at the same poll, whichever was
    told: jax.distributed, where it is initialised, catches the signal and spreads it.
    """

    def __init__(self):
        self._told, self._polls = False, 0

    def __enter__(self) -> "Notice":
        self._alone = not jax.distributed.is_initialized()
        if self._alone:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self._told = True

    def reached(self) -> bool:
        """Whether to save and end now; the same answer in every process."""
        self._polls += 1
        return self._told if self._alone else multihost_utils.reached_preemption_sync_point(
            self._polls
        )


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Take part in a run of several processes; if this one fails alone, it ends at once.

    What every process raises alike, a UserError, ends in order. After anything else that would
    mean to wait for processes that are dead, or that wait for this one. Where it waits for a dead
    one outside a step, as for a checkpoint, JAX ends it after `SILENCE`, by SIGABRT.
    """
    jax.distributed.initialize(
        heartbeat_timeout_seconds=SILENCE, shutdown_timeout_seconds=LAST_WAIT
    )
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        if isinstance(error, jax.errors.JaxRuntimeError) and "onnection" in reason:
            print(
                f"error: process {jax.process_index()} of {jax.process_count()} has lost another "
                f"({reason}); start all of them again: they go on from the last checkpoint",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
