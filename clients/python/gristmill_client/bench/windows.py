# SPDX-License-Identifier: Apache-2.0
"""What was measured: windows of time, when they are stable, and what they amount to. Pure values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

#: As many windows in a row must agree for a measurement to be stable.
STABLE_WINDOWS = 3


@dataclass
class Window:
    """One window of one or more processes. Latencies in seconds, of answered requests; errors by status name."""

    duration_s: float
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Answered requests a second."""
        return len(self.latencies_s) / self.duration_s if self.duration_s > 0 else 0.0


def merge_parallel(windows: Sequence[Window]) -> Window:
    """The same window as seen by several processes."""
    merged = Window(float(np.mean([window.duration_s for window in windows])))
    for window in windows:
        merged.latencies_s += window.latencies_s
        merged.errors += window.errors
    return merged


def is_stable(windows: Sequence[Window], tolerance: float) -> bool:
    """Whether the last windows agree: throughput and p99 each within `tolerance` of their mean."""
    last = windows[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS or not all(window.latencies_s for window in last):
        return False
    throughput = np.array([window.per_second for window in last])
    p99 = np.array([np.percentile(window.latencies_s, 99) for window in last])
    return all(bool((abs(values - values.mean()) <= tolerance * values.mean()).all()) for values in (throughput, p99))


@dataclass(frozen=True)
class Latency:
    """Of the client, in microseconds."""

    mean_us: float
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float

    @classmethod
    def of(cls, latencies_s: Sequence[float]) -> Latency:
        """Zeros where nothing was answered."""
        if not latencies_s:
            return cls(0, 0, 0, 0, 0)
        values = np.array(latencies_s) * 1e6
        return cls(float(values.mean()), *(float(value) for value in np.percentile(values, (50, 90, 95, 99))))


@dataclass(frozen=True)
class ServerSplit:
    """Where the server spent its time: means per request in microseconds, and the mean batch in rows."""

    queue_us: float = 0.0
    compute_input_us: float = 0.0
    compute_infer_us: float = 0.0
    compute_output_us: float = 0.0
    mean_batch: float = 0.0


@dataclass(frozen=True)
class Totals:
    """The counters of ModelStatistics that the split is made of."""

    requests: int = 0
    rows: int = 0
    executions: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0

    def split_since(self, before: Totals) -> ServerSplit:
        """The means over what happened since `before`."""
        requests = self.requests - before.requests
        executions = self.executions - before.executions
        if requests <= 0 or executions <= 0:
            return ServerSplit()
        scale = 1e-3 / requests
        return ServerSplit(
            (self.queue_ns - before.queue_ns) * scale,
            (self.compute_input_ns - before.compute_input_ns) * scale,
            (self.compute_infer_ns - before.compute_infer_ns) * scale,
            (self.compute_output_ns - before.compute_output_ns) * scale,
            (self.rows - before.rows) / executions,
        )


@dataclass(frozen=True)
class LevelResult:
    """One level, measured."""

    level: str
    stable: bool
    windows: int
    requests_per_second: float
    rows_per_second: float
    latency: Latency
    server: ServerSplit
    errors: dict[str, int]
