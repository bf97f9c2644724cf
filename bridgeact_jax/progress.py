"""One progress line: rewritten in place on a terminal, a plain line now and then in a log."""

import sys
import time
from typing import TextIO

TERMINAL_PERIOD_S = 0.2
LOG_PERIOD_S = 10.0


class Progress:
    """Counts `unit`s up to `total` (None where unknown) and shows rate, time left and figures.

    Use as a context manager, or call `close()`, which shows the final count. `done` units were
    finished before and do not enter the rate.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        label: str,
        stream: TextIO | None = None,
        *,
        done: int = 0,
    ):
        self.total, self.unit, self.label = total, unit, label
        self.done = self._before = done
        self._bytes = 0
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._period = TERMINAL_PERIOD_S if self._terminal else LOG_PERIOD_S
        self._start = self._shown = time.monotonic()
        self._first: tuple[float, int, int] | None = None
        self._figures: dict[str, object] = {}
        self._width = 0
        self._closed = False

    def update(self, n: int = 1, *, num_bytes: int = 0, **figures: object) -> None:
        """Add `n` finished units, for which `num_bytes` were read.

        `figures` (loss=..., kept=...) stay until they are replaced.
        """
        self.done += n
        self._bytes += num_bytes
        self._figures.update(figures)
        now = time.monotonic()
        if self._first is None and self.done > self._before:
            self._first = now, self.done, self._bytes
        if now - self._shown >= self._period:
            self._shown = now
            self._show(now)

    def close(self) -> None:
        """Show the last state and end the line; further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        self._show(time.monotonic())
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, now: float) -> None:
        line = self._line(now)
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _rates(self, now: float) -> tuple[float, float]:
        """Units and bytes per second since the first: start-up and compilation do not count."""
        if self._first is not None and self.done > self._first[1] and now > self._first[0]:
            since, done, read = self._first
        elif self._closed and now > self._start:
            since, done, read = self._start, self._before, 0
        else:
            return 0.0, 0.0
        return (self.done - done) / (now - since), (self._bytes - read) / (now - since)

    def _line(self, now: float) -> str:
        (rate, byte_rate), elapsed = self._rates(now), now - self._start
        count = f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}"
        parts = [f"{self.label}: {count} {self.unit}"]
        if rate > 0:
            parts.append(f"{_number(rate)}/s")
        if byte_rate > 0:
            parts.append(f"{_number(byte_rate / 1e6)} MB/s")
        if self._closed or self.total is None:
            parts.append(format_seconds(elapsed))
        elif rate > 0:
            parts.append(f"{format_seconds(max(self.total - self.done, 0) / rate)} left")
        parts += [f"{name} {_number(value)}" for name, value in self._figures.items()]
        return "  ".join(parts)


def format_seconds(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _number(value: object) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if number == int(number) if abs(number) < 1e15 else False:
        return f"{int(number):,}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
