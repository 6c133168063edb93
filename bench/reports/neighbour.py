# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.neighbour."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.neighbour import NeighbourResult
from bench.report import Table, grouped_bars, short


def table(results: Sequence[NeighbourResult]) -> Table:
    """One row."""
    return Table(
        ["alone, p50 ms", "p99 ms", "beside, p50 ms", "p99 ms", "a heavy batch, ms", "p99 to twice alone and a batch"],
        [
            [
                *(short(result.alone_p50_ms), short(result.alone_p99_ms)),
                *(short(result.beside_p50_ms), short(result.beside_p99_ms)),
                *(short(result.heavy_batch_ms), f"{result.p99_to_bound:.2f}"),
            ]
            for result in results
        ],
    )


def plot(results: Sequence[NeighbourResult]) -> Figure:
    """Alone and beside the heavy model."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    result = results[0]
    series = {
        "alone": [result.alone_p50_ms, result.alone_p99_ms],
        "beside a saturated heavy model": [result.beside_p50_ms, result.beside_p99_ms],
    }
    grouped_bars(axes, ["median", "99th percentile"], series, "%.3g")
    axes.set(title="Latency of a light model", ylabel="milliseconds")
    return figure
