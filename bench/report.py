# SPDX-License-Identifier: Apache-2.0
"""Results on disk: figures with all that they depend on, as JSON, and a plot beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from bench.load.direct_share import ShareResult
from bench.load.mlp_requests import RequestsResult
from bench.machine import ROOT

RESULTS = ROOT / "bench" / "results"
_DPI = 130


def write_json(name: str, facts: Mapping[str, Any], figures: Sequence[Any]) -> Path:
    """Write bench/results/<name>.json: `facts` of the run, then its figures, which are dataclasses."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"bench": name, **facts, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def save_plot(name: str, figure: Figure) -> Path:
    """Write bench/results/<name>.png."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    return path


def share_table(results: Sequence[ShareResult]) -> Table:
    """Of direct_share."""
    table = Table(title="Through the server and direct, rows/s; the model always has one thread")
    headings = ["Workload", "Batch", "Mean batch", "Direct", "Server", "Share", "One core", "CPU ratio"]
    for heading in [*headings, "Gain direct", "Gain server"]:
        table.add_column(heading, justify="left" if heading == "Workload" else "right", no_wrap=True)
    for result in results:
        table.add_row(
            *(result.workload, str(result.batch), f"{result.server_mean_batch:.1f}"),
            *(f"{result.direct_rows_per_s:,.0f}", f"{result.server_rows_per_s:,.0f}", f"{result.share:.1%}"),
            *(f"{result.one_core_share:.1%}", f"{result.cpu_ratio:.2f}"),
            *(_times(result.direct_gain_of_batching), _times(result.server_gain_of_batching)),
        )
    table.caption = (
        "Share: with the load's core for all but the model. One core: with none but the model's.\n"
        "CPU ratio: of a row through the server on one core, to direct. Gain: batched / unbatched."
    )
    return table


def share_plot(results: Sequence[ShareResult]) -> Figure:
    """Of direct_share: the share of the direct throughput, and the gain of batching on either side."""
    figure, (share, gain) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    names = [result.workload.replace(", ", ",\n") for result in results]
    _grouped_bars(
        share,
        names,
        {
            "two cores": [result.share * 100 for result in results],
            "one core": [result.one_core_share * 100 for result in results],
        },
        "%.1f %%",
    )
    share.axhline(100, color="black", linewidth=0.8)
    share.set(title="Throughput through the server", ylabel="% of ONNX Runtime called directly")
    share.margins(y=0.15)
    compared = [result for result in results if result.direct_gain_of_batching is not None]
    _grouped_bars(
        gain,
        [result.workload for result in compared],
        {
            "direct": [result.direct_gain_of_batching or 0 for result in compared],
            "through the server": [result.server_gain_of_batching or 0 for result in compared],
        },
        "%.2f",
    )
    gain.axhline(1, color="black", linewidth=0.8)
    gain.set(title="Gain of batching", ylabel="batched / unbatched", yscale="log")
    gain.margins(y=0.15)
    for axes in (share, gain):
        axes.tick_params(axis="x", labelsize=8)
    return figure


def requests_table(results: Sequence[RequestsResult]) -> Table:
    """Of mlp_requests."""
    table = Table(title="One row of a 16-64-32-1 MLP a request, server on one core")
    headings = ["Server", "Streams", "Requests/s", "CPU us", "Core used", "p50 us", "p99 us", "Batch"]
    headings += ["Rate ratio", "CPU ratio"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "Server" else "right", no_wrap=True)
    for number, result in enumerate(results):
        ends = number + 1 < len(results) and results[number + 1].server == results[0].server
        table.add_row(
            *(result.server, f"{result.connections} x {result.streams}", f"{result.requests_per_s:,.0f}"),
            *(f"{result.cpu_us_per_request:.2f}", f"{result.core_used:.0%}", f"{result.p50_us:,.0f}"),
            f"{result.p99_us:,.0f}",
            "-" if result.mean_batch is None else f"{result.mean_batch:.1f}",
            *(f"{result.gristmill_rate_ratio:.3g}", f"{result.gristmill_cpu_ratio:.3g}"),
            end_section=ends,
        )
    table.caption = "Ratio: of gristmill to the server of the row"
    return table


def requests_plot(results: Sequence[RequestsResult]) -> Figure:
    """Of mlp_requests: rate and CPU of each server by concurrency, both logarithmic."""
    figure, (rates, cpu) = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    loads = [f"{load[0]} x {load[1]}" for load in dict.fromkeys((r.connections, r.streams) for r in results)]
    servers = list(dict.fromkeys(result.server for result in results))
    by_server = {server: [result for result in results if result.server == server] for server in servers}
    thousands = {server: [r.requests_per_s / 1000 for r in rows] for server, rows in by_server.items()}
    _grouped_bars(rates, loads, thousands, "%.1f")
    rates.set(title="Requests per second on one core", ylabel="thousands", yscale="log")
    _grouped_bars(cpu, loads, {name: [r.cpu_us_per_request for r in rows] for name, rows in by_server.items()}, "%.1f")
    cpu.set(title="CPU of the server per request", ylabel="microseconds", yscale="log")
    for axes in (rates, cpu):
        axes.set_xlabel("connections x streams")
        axes.margins(y=0.15)
        axes.get_legend().remove()
    figure.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=len(servers))
    return figure


def _grouped_bars(axes: Axes, names: Sequence[str], series: Mapping[str, Sequence[float]], label: str) -> None:
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        offset = (number - (len(series) - 1) / 2) * width
        bars = axes.bar([place + offset for place in range(len(names))], values, width, label=name)
        axes.bar_label(bars, fmt=label, fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.legend()


def _times(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2f}x"
