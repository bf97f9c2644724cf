"""What the server has done: counts, and latencies of the parts of an answer."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np

PARTS = ("decode", "wait", "track", "crop", "sample", "limit", "encode", "total")
COUNTS = (
    "clients", "clients_refused", "clients_dropped", "requests", "errors", "late", "stale",
    "chunks", "limited",
)  # fmt: skip
QUANTILES = (0.5, 0.95, 0.99)
KEPT = 10_000  # latencies of each part


class Metrics:
    """Counts and the last latencies; from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = Counter({name: 0 for name in COUNTS})
        self._seconds = defaultdict(lambda: deque(maxlen=KEPT))

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of `COUNTS`."""
        with self._lock:
            self._counts[name] += number

    def add(self, seconds: Mapping[str, float]) -> None:
        """Take note of {part of `PARTS`: seconds} of an answer."""
        with self._lock:
            for part, value in seconds.items():
                self._seconds[part].append(value)

    def counts(self) -> dict[str, int]:
        """{name: how often} so far."""
        with self._lock:
            return dict(self._counts)

    def quantiles(self) -> dict[str, list[float]]:
        """{part: seconds at each of `QUANTILES`} of the last `KEPT`; parts never seen are not."""
        with self._lock:
            seen = {part: list(self._seconds[part]) for part in PARTS if self._seconds[part]}
        return {part: np.quantile(values, QUANTILES).tolist() for part, values in seen.items()}

    def text(self, connected: int) -> str:
        """All of it as Prometheus reads it; `connected` is the number of clients now."""
        lines = ["# TYPE bridgeact_connected gauge", f"bridgeact_connected {connected}"]
        for name, number in self.counts().items():
            lines += [f"# TYPE bridgeact_{name}_total counter", f"bridgeact_{name}_total {number}"]
        lines.append("# TYPE bridgeact_seconds summary")
        for part, values in self.quantiles().items():
            lines += [
                f'bridgeact_seconds{{part="{part}",quantile="{quantile}"}} {value:.6f}'
                for quantile, value in zip(QUANTILES, values, strict=True)
            ]
        return "\n".join(lines) + "\n"


class Stopwatch:
    """Seconds of the parts of one answer."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Seconds in this block are of `name`, one of `PARTS`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def milliseconds(self) -> dict[str, float]:
        """{part_ms: ...} so far, as openpi names them."""
        return {f"{part}_ms": 1e3 * value for part, value in self.seconds.items()}
