# SPDX-License-Identifier: Apache-2.0
"""Measures one level after the other: starts the processes, collects their windows, asks the server for its split."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from gristmill_client.bench import worker
from gristmill_client.bench.levels import Level
from gristmill_client.bench.windows import (
    STABLE_WINDOWS,
    Latency,
    LevelResult,
    Totals,
    Window,
    is_stable,
    merge_parallel,
)
from gristmill_client.errors import Unavailable
from gristmill_client.sync_client import Client

#: Beyond the window itself, for a process to start and to report.
_REPORT_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How a level is measured. `stability` is the tolerance between windows, as a fraction."""

    model: str
    version: str
    request: bytes
    batch_size: int
    window_s: float
    max_windows: int
    stability: float
    processes: int
    timeout_s: float


def measure(client: Client, options: BenchOptions, level: Level, on_window: Callable[[Window], None]) -> LevelResult:
    """Measure one level until it is stable or `max_windows` are over. The first window warms up and is not counted."""
    windows: list[Window] = []
    totals: list[Totals] = []
    with _processes(client.url, options, level) as connections:
        for number in range(options.max_windows + 1):
            window = merge_parallel([_receive(connection, options.window_s) for connection in connections])
            totals.append(_totals(client, options))
            if number == 0:
                continue
            windows.append(window)
            on_window(window)
            if is_stable(windows, options.stability):
                break
    return summarise(level, options, windows, totals)


def summarise(level: Level, options: BenchOptions, windows: list[Window], totals: list[Totals]) -> LevelResult:
    """What the last windows amount to. `totals` has one entry more than `windows`: the one before the first."""
    last = windows[-STABLE_WINDOWS:]
    latencies = [latency for window in last for latency in window.latencies_s]
    per_second = len(latencies) / sum(window.duration_s for window in last)
    errors: Counter[str] = sum((window.errors for window in last), Counter())
    return LevelResult(
        level=str(level),
        stable=is_stable(windows, options.stability),
        windows=len(windows),
        requests_per_second=per_second,
        rows_per_second=per_second * options.batch_size,
        latency=Latency.of(latencies),
        server=totals[-1].split_since(totals[-1 - len(last)]),
        errors=dict(errors),
    )


@contextmanager
def _processes(url: str, options: BenchOptions, level: Level) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    count = min(options.processes, level.concurrency) if level.concurrency else options.processes
    started = []
    for index in range(count):
        ours, theirs = context.Pipe()
        share = level.share(index, count)
        worker_options = worker.WorkerOptions(url, options.request, share, options.window_s, options.timeout_s, index)
        process = context.Process(target=worker.main, args=(worker_options, theirs), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        yield [connection for _, connection in started]
    finally:
        for process, connection in started:
            if process.is_alive():
                connection.send("stop")
        for process, _ in started:
            process.join(_REPORT_LIMIT_S)
            if process.is_alive():
                process.kill()


def _receive(connection: Connection, window_s: float) -> Window:
    try:
        if connection.poll(window_s + _REPORT_LIMIT_S):
            window = connection.recv()
            assert isinstance(window, Window)
            return window
    except EOFError:
        pass
    raise Unavailable("a process of the load generator ended or does not answer; its own message is above")


def _totals(client: Client, options: BenchOptions) -> Totals:
    entry = client.model_statistics(options.model, options.version, timeout=options.timeout_s)[-1]
    stats = entry.inference_stats
    return Totals(
        stats.success.count,
        entry.inference_count,
        entry.execution_count,
        stats.queue.ns,
        stats.compute_input.ns,
        stats.compute_infer.ns,
        stats.compute_output.ns,
    )
