# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.composed."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.composed import MODELS, ComposedResult
from bench.report import Table, grouped_bars, short


def table(results: Sequence[ComposedResult]) -> Table:
    """One row for each load and model."""
    return Table(
        ["calls", "model", "requests/s", "server's CPU us", "batch", "rate, ratio"],
        [
            [
                *(str(result.calls), MODELS[result.model][0], f"{result.requests_per_s:,.0f}"),
                *(
                    short(result.cpu_us_per_request),
                    short(result.mean_batch) if result.mean_batch else "",
                    f"{result.rate_ratio:.2f}",
                ),
            ]
            for result in results
        ],
        "The ratio is to calls of the backend in C++. CPU is of the server's process, without Python workers.",
    )


def plot(results: Sequence[ComposedResult]) -> Figure:
    """Rates, by load."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    loads = sorted({result.calls for result in results})
    series = {
        model: [
            next(result.requests_per_s for result in results if (result.model, result.calls) == (model, calls))
            for calls in loads
        ]
        for model in MODELS
    }
    grouped_bars(axes, [f"{calls} calls at a time" for calls in loads], series, "%.3g")
    axes.set(title="Requests of a model by what it is made of", ylabel="requests a second", yscale="log")
    return figure
