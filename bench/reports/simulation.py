# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.simulation."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.simulation import LOADS, MODELS, POLICIES, TRACES, SimulatedResult
from bench.report import Table


def table(results: Sequence[SimulatedResult]) -> Table:
    """One row a model, trace and load, one column a policy."""
    goodput = {(r.model, r.trace, r.load, r.policy): r.goodput for r in results}
    return Table(
        ["model", "trace", "load", *POLICIES],
        [
            [model, trace, f"{load:g}", *(f"{goodput[model, trace, load, policy]:.2f}" for policy in POLICIES)]
            for model in MODELS
            for trace in TRACES
            for load in LOADS
        ],
        "Answers in time, to the most that the model can answer; the load likewise.",
    )


def plot(results: Sequence[SimulatedResult]) -> Figure:
    """Goodput over load: a row of panels for each model, a column for each trace."""
    figure, panels = plt.subplots(
        len(MODELS), len(TRACES), figsize=(12, 7), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for axes_of_model, model in zip(panels, MODELS, strict=True):
        for axes, trace in zip(axes_of_model, TRACES, strict=True):
            for policy in POLICIES:
                line = [r.goodput for r in results if (r.model, r.trace, r.policy) == (model, trace, policy)]
                axes.plot(LOADS, line, marker="o", label=policy, linewidth=2.5 if policy == "gristmill" else 1.2)
            axes.plot(LOADS, [min(load, 1) for load in LOADS], color="grey", linestyle=":", label="all that could be")
            axes.set(title=f"{model}, {trace}", xlabel="load, to saturation", ylabel="answers in time", ylim=(0, 1.05))
            axes.label_outer()
    panels[0][0].legend(fontsize=8)
    return figure
