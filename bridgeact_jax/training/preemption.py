"""Being told to go: SIGTERM, or the notice that a machine will be taken away."""

import signal

import jax
from jax.experimental import multihost_utils

from bridgeact_jax.errors import UserError


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
