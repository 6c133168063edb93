# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.overload."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.overload import ADAPTIVE, DEADLINE_MS, FIXED, LOADS, OverloadResult, goodput_of
from bench.report import Table, short


def table(results: Sequence[OverloadResult]) -> Table:
    """One row a load and arm."""
    return Table(
        ["load", "scheduler", "answers in time", "not answered", "p50 ms", "p99 ms"],
        [
            [
                *(f"{result.load:g}", result.arm, f"{result.goodput:.2f}", f"{result.refused:.0%}"),
                *(short(result.p50_ms), short(result.p99_ms)),
            ]
            for result in results
        ],
        f"Load and answers in time (within {DEADLINE_MS} ms): to the rate at saturation, "
        f"{results[0].saturation_per_s:,.0f} calls/s. Percentiles are of those answered.",
    )


def plot(results: Sequence[OverloadResult]) -> Figure:
    """Goodput by load."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for arm in (ADAPTIVE, FIXED):
        axes.plot(LOADS, goodput_of(results, arm), marker="o", label=arm)
    axes.plot(LOADS, [min(load, 1) for load in LOADS], color="grey", linestyle=":", label="all that could be")
    axes.set(
        title="Answers in time under overload", xlabel="load, to saturation", ylabel="answers in time", ylim=(0, 1.05)
    )
    axes.legend()
    return figure
