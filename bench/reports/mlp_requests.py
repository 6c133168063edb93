# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.mlp_requests."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.mlp_requests import RequestsResult
from bench.report import Table, grouped_bars, short


def table(results: Sequence[RequestsResult]) -> Table:
    """One row a server and concurrency."""
    headings = ["server", "calls at a time", "requests/s", "CPU us", "core used", "p50 us", "p99 us", "batch"]
    return Table(
        [*headings, "native's rate to it", "native's CPU to it", "CPU to the HTTP/2 floor"],
        [
            [
                *(result.server, f"{result.connections} x {result.streams}", f"{result.requests_per_s:,.0f}"),
                *(short(result.cpu_us_per_request), f"{result.core_used:.0%}"),
                *(short(result.p50_us), short(result.p99_us)),
                "" if result.mean_batch is None else f"{result.mean_batch:.1f}",
                *(short(result.gristmill_rate_ratio), short(result.gristmill_cpu_ratio)),
                short(result.cpu_to_h2_floor),
            ]
            for result in results
        ],
    )


def plot(results: Sequence[RequestsResult]) -> Figure:
    """Rate and CPU of each server by concurrency, both logarithmic."""
    figure, (rates, cpu) = plt.subplots(2, 1, figsize=(13, 8), layout="constrained")
    loads = [f"{load[0]} x {load[1]}" for load in dict.fromkeys((r.connections, r.streams) for r in results)]
    servers = list(dict.fromkeys(result.server for result in results))
    by_server = {server: [result for result in results if result.server == server] for server in servers}
    thousands = {server: [r.requests_per_s / 1000 for r in rows] for server, rows in by_server.items()}
    grouped_bars(rates, loads, thousands, "%.3g")
    rates.set(title="Requests per second on one core", ylabel="thousands", yscale="log")
    cpu_us = {server: [r.cpu_us_per_request for r in rows] for server, rows in by_server.items()}
    grouped_bars(cpu, loads, cpu_us, "%.3g")
    cpu.set(title="CPU of the server per request", ylabel="microseconds", yscale="log")
    for axes in (rates, cpu):
        axes.set_xlabel("connections x streams")
        axes.get_legend().remove()
    figure.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
