# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.io_threads."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.io_threads import ScalingResult
from bench.report import Table, grouped_bars, short


def table(results: Sequence[ScalingResult]) -> Table:
    """One row a workload and number of event loops."""
    headings = ["request", "--io-threads", "requests/s", "to one", "server's CPU us", "to one", "load's CPU us"]
    return Table(
        [*headings, "cores, server", "cores, load"],
        [
            [
                *(
                    result.workload,
                    str(result.io_threads),
                    f"{result.requests_per_s:,.0f}",
                    f"{result.rate_to_one:.2f}",
                ),
                *(short(result.server_cpu_us), f"{result.cpu_to_one:.2f}", short(result.client_cpu_us)),
                *(f"{result.server_cores:.2f}", f"{result.client_cores:.2f}"),
            ]
            for result in results
        ],
    )


def plot(results: Sequence[ScalingResult]) -> Figure:
    """The rate to that with one event loop, and who had the two cores."""
    figure, (growth, cores) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    workloads = list(dict.fromkeys(result.workload for result in results))
    threads = list(dict.fromkeys(result.io_threads for result in results))
    by_threads = {f"--io-threads {n}": [r.rate_to_one for r in results if r.io_threads == n] for n in threads}
    grouped_bars(growth, workloads, by_threads, "%.2f")
    growth.set(title="Requests per second, to one event loop", xlabel="request")
    names = [f"{result.workload}\n{result.io_threads}" for result in results]
    cores.bar(names, [result.server_cores for result in results], label="server")
    below = [result.server_cores for result in results]
    cores.bar(names, [result.client_cores for result in results], bottom=below, label="load")
    cores.set(title="Who kept the two cores busy", ylabel="cores", xlabel="request, --io-threads")
    cores.tick_params(axis="x", labelsize=8)
    cores.legend()
    return figure
