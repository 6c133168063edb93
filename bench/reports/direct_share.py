# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.direct_share."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.direct_share import ShareResult
from bench.report import Table, grouped_bars


def table(results: Sequence[ShareResult]) -> Table:
    """One row a workload."""
    headings = [
        "model",
        "batch",
        "mean batch",
        "rows/s direct",
        "rows/s through the server",
        "share",
        "share, one core",
    ]
    return Table(
        [*headings, "CPU of a row, to direct", "gain of batching, direct", "through the server"],
        [
            [
                *(result.workload, str(result.batch), f"{result.server_mean_batch:.1f}"),
                *(f"{result.direct_rows_per_s:,.0f}", f"{result.server_rows_per_s:,.0f}", f"{result.share:.1%}"),
                *(f"{result.one_core_share:.1%}", f"{result.cpu_ratio:.2f}"),
                *(_times(result.direct_gain_of_batching), _times(result.server_gain_of_batching)),
            ]
            for result in results
        ],
        "Share: with the load's core for all but the model; one core: with none but the model's. CPU: on one core.",
    )


def plot(results: Sequence[ShareResult]) -> Figure:
    """The share of the direct throughput, and the gain of batching on either side."""
    figure, (share, gain) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    shares = {
        "two cores": [result.share * 100 for result in results],
        "one core": [result.one_core_share * 100 for result in results],
    }
    grouped_bars(share, [result.workload.replace(", ", ",\n") for result in results], shares, "%.1f %%")
    share.axhline(100, color="black", linewidth=0.8)
    share.set(title="Throughput through the server", ylabel="% of ONNX Runtime called directly")
    compared = [result for result in results if result.direct_gain_of_batching is not None]
    gains = {
        "direct": [result.direct_gain_of_batching or 0 for result in compared],
        "through the server": [result.server_gain_of_batching or 0 for result in compared],
    }
    grouped_bars(gain, [result.workload for result in compared], gains, "%.2f")
    gain.axhline(1, color="black", linewidth=0.8)
    gain.set(title="Gain of batching", ylabel="batched / unbatched", yscale="log")
    for axes in (share, gain):
        axes.tick_params(axis="x", labelsize=8)
    return figure


def _times(gain: float | None) -> str:
    return "" if gain is None else f"{gain:.2f}"
