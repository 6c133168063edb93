# SPDX-License-Identifier: Apache-2.0
"""Of bench.load.tensor_sizes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.load.tensor_sizes import TensorResult, size_name
from bench.report import Table, short


def table(results: Sequence[TensorResult]) -> Table:
    """One row a size and server."""
    headings = [
        "tensor",
        "server",
        "requests/s",
        "GB/s in + out",
        "memcpy GB/s",
        "CPU us",
        "CPU in copies",
        "core used",
    ]
    return Table(
        [*headings, "load's core", "native's rate to it"],
        [
            [
                *(size_name(result.tensor_bytes), result.server, f"{result.requests_per_s:,.0f}"),
                *(short(result.gb_per_s), short(result.memcpy_gb_per_s), short(result.cpu_us_per_request)),
                *(short(result.cpu_in_copies), f"{result.core_used:.0%}", f"{result.client_core_used:.0%}"),
                short(result.native_rate_ratio),
            ]
            for result in results
        ],
        "CPU in copies: how often the tensor could be copied in the CPU time of a request.",
    )


def plot(results: Sequence[TensorResult]) -> Figure:
    """Throughput and CPU by size, both axes logarithmic."""
    figure, (throughput, cpu) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    servers = list(dict.fromkeys(result.server for result in results))
    by_server = {server: [result for result in results if result.server == server] for server in servers}
    for server, rows in by_server.items():
        sizes = [row.tensor_bytes for row in rows]
        throughput.plot(sizes, [row.gb_per_s for row in rows], marker="o", label=server)
        cpu.plot(sizes, [row.cpu_us_per_request for row in rows], marker="o", label=server)
    once = by_server[servers[0]]
    sizes = [row.tensor_bytes for row in once]
    throughput.plot(sizes, [row.memcpy_gb_per_s for row in once], color="black", linestyle="--", label="memcpy")
    copy_us = [row.tensor_bytes / row.memcpy_gb_per_s / 1e3 for row in once]
    cpu.plot(sizes, copy_us, color="black", linestyle="--", label="memcpy, once")
    throughput.set(title="Tensor bytes in and out", ylabel="GB/s")
    cpu.set(title="CPU of the server per request", ylabel="microseconds")
    for axes in (throughput, cpu):
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(sizes, [size_name(size) for size in sizes])
        axes.minorticks_off()
        axes.legend()
    return figure
