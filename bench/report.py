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
    table = Table(title="Through the server and direct, rows/s on one core")
    for heading in ("Workload", "Batch", "Mean batch", "Direct", "Server", "Share", "Gain direct", "Gain server"):
        table.add_column(heading, justify="left" if heading == "Workload" else "right", no_wrap=True)
    for result in results:
        table.add_row(
            *(result.workload, str(result.batch), f"{result.server_mean_batch:.1f}"),
            *(f"{result.direct_rows_per_s:,.0f}", f"{result.server_rows_per_s:,.0f}", f"{result.share:.1%}"),
            *(_times(result.direct_gain_of_batching), _times(result.server_gain_of_batching)),
        )
    table.caption = "Gain: batched / unbatched"
    return table


def share_plot(results: Sequence[ShareResult]) -> Figure:
    """Of direct_share: the share of the direct throughput, and the gain of batching on either side."""
    figure, (share, gain) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    names = [result.workload.replace(", ", ",\n") for result in results]
    bars = share.bar(names, [result.share * 100 for result in results], color="tab:blue")
    share.bar_label(bars, fmt="%.1f %%")
    share.axhline(100, color="black", linewidth=0.8)
    share.set(title="Throughput through the server", ylabel="% of ONNX Runtime called directly", ylim=(0, 115))
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
