# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.sweep."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.sweep import SweepResult
from bench.report import Table, short


def table(results: Sequence[SweepResult]) -> Table:
    """One row a load."""
    headings = ["load", "calls/s", "p50 ms", "p99 ms", "best fixed arm", "its p50 ms", "its p99 ms"]
    return Table(
        [*headings, "p99 to it", "completed to the best", "worst p99 ms"],
        [
            [
                *(f"{result.load:.0%}", f"{result.calls_per_s:,.0f}", short(result.p50_ms), short(result.p99_ms)),
                *(result.best, short(result.best_p50_ms), short(result.best_p99_ms)),
                *(f"{result.p99_to_best:.2f}", f"{result.completed_to_best:.3f}", short(result.worst_p99_ms)),
            ]
            for result in results
        ],
    )


def plot(results: Sequence[SweepResult]) -> Figure:
    """p99 by load: adaptive, the best fixed arm of each load, the worst."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    loads = [result.load for result in results]
    axes.plot(loads, [result.worst_p99_ms for result in results], marker=".", label="worst fixed size and delay")
    axes.plot(
        loads, [result.best_p99_ms for result in results], marker="o", label="best fixed size and delay of each load"
    )
    axes.plot(loads, [result.p99_ms for result in results], marker="o", label="adaptive")
    axes.set(title="99th percentile of latency", xlabel="load, to saturation", ylabel="milliseconds", yscale="log")
    axes.legend()
    return figure
