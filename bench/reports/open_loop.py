# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.open_loop."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.open_loop import OpenLoopResult
from bench.report import Table, grouped_bars, short


def table(results: Sequence[OpenLoopResult]) -> Table:
    """One row a server and share."""
    headings = ["server", "load", "calls/s", "p50 us", "p99 us", "p50 to native's", "p99 to native's", "core used"]
    return Table(
        [*headings, "sent late, p99 us"],
        [
            [
                *(result.server, f"{result.share:.0%}", f"{result.offered_per_s:,.0f}"),
                *(short(result.p50_us), short(result.p99_us)),
                *(short(result.p50_to_gristmill), short(result.p99_to_gristmill)),
                *(f"{result.core_used:.0%}", short(result.sent_late_p99_us)),
            ]
            for result in results
        ],
        "Load: to what the server answers in a closed loop. Latency counts from when a call was due, and so includes "
        "what the generator was late.",
    )


def plot(results: Sequence[OpenLoopResult]) -> Figure:
    """p50 and p99 of each server by share, logarithmic."""
    figure, both = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained", sharey=True)
    shares = list(dict.fromkeys(result.share for result in results))
    servers = list(dict.fromkeys(result.server for result in results))
    for axes, name, percentile in zip(both, ("p50_us", "p99_us"), ("Median", "99th percentile"), strict=True):
        series = {server: [getattr(r, name) / 1000 for r in results if r.server == server] for server in servers}
        grouped_bars(axes, [f"{share:.0%} of saturation" for share in shares], series, "%.3g")
        axes.set(title=f"{percentile} of latency, calls at random times", yscale="log")
        axes.get_legend().remove()
    both[0].set(ylabel="milliseconds")
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(servers))
    return figure
