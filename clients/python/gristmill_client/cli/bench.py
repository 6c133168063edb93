# SPDX-License-Identifier: Apache-2.0
"""`gristmill bench`: how much load a model takes, and how it feels to its callers."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata as distributions
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gristmill_client.bench.levels import Arrivals, Level, parse_range
from gristmill_client.bench.runner import BenchOptions, measure
from gristmill_client.bench.windows import LevelResult, Window
from gristmill_client.cli.arrays import load_npz, make_inputs, parse_shapes
from gristmill_client.cli.common import (
    DEFAULT_TIMEOUT_S,
    EXIT_FAILED,
    Output,
    OutputForm,
    Timeout,
    Url,
    Version,
    console,
    errors_to_exit_codes,
    fail,
    print_json,
    progress_console,
)
from gristmill_client.codec import RequestOptions, encode_request
from gristmill_client.datatypes import Array
from gristmill_client.errors import InvalidArgument
from gristmill_client.options import DEFAULT_URL
from gristmill_client.sync_client import Client


def bench(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    concurrency: Annotated[
        str, typer.Option(help="Closed loop: requests at once, as 8, 1,4,16 or start:end:step.")
    ] = "1",
    request_rate: Annotated[str, typer.Option(help="Open loop instead: requests a second, as for --concurrency.")] = "",
    distribution: Annotated[Arrivals, typer.Option(help="Of the requests of an open loop.")] = Arrivals.CONSTANT,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Rows per request.")] = 1,
    input_data: Annotated[
        str, typer.Option(help="random, zero, or an .npz file with arrays by input name.")
    ] = "random",
    shape: Annotated[list[str] | None, typer.Option(help="NAME:DIM,... of an input with open dimensions.")] = None,
    window: Annotated[float, typer.Option(min=0.05, help="Seconds per measurement window.")] = 2.0,
    max_windows: Annotated[int, typer.Option(min=1, help="Windows per level before it is called unstable.")] = 10,
    stability: Annotated[float, typer.Option(min=0, help="Tolerance between the last three windows.")] = 0.1,
    processes: Annotated[int, typer.Option(min=1, help="Processes that make the load.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    version: Version = "",
    url: Url = DEFAULT_URL,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: Output = OutputForm.TABLE,
) -> None:
    """Put a model under load: throughput, latency percentiles, and where the server spends its time.

    Fails (exit status 1) when no request of a level is answered.
    """
    with errors_to_exit_codes(), Client(url) as client:
        levels = _levels(concurrency, request_rate, distribution)
        arrays = _inputs(client, model, version, (input_data, batch_size, shape or ()))
        # One real call first: a request that cannot succeed should say why, not fail a thousand times.
        client.infer(model, arrays, version=version, timeout=timeout)
        options = BenchOptions(
            model=model,
            version=version,
            request=encode_request(model, arrays, RequestOptions(version=version)),
            batch_size=next(iter(arrays.values())).shape[0] if input_data.endswith(".npz") else batch_size,
            window_s=window,
            max_windows=max_windows,
            stability=stability,
            processes=processes,
            timeout_s=timeout,
        )
        results = _measure_all(client, options, levels)
    report = _report(url, options, results)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    if output is OutputForm.JSON:
        print_json(report)
    else:
        for table in _tables(results, options):
            console.print(table)
    if not all(result.requests_per_second for result in results):
        raise fail("no request was answered at one level or more", EXIT_FAILED)


def _levels(concurrency: str, request_rate: str, distribution: Arrivals) -> list[Level]:
    try:
        if request_rate:
            return [Level(rate=rate, arrivals=distribution) for rate in parse_range(request_rate)]
        return [Level(concurrency=count) for count in parse_range(concurrency)]
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def _inputs(client: Client, model: str, version: str, data: tuple[str, int, Sequence[str]]) -> dict[str, Array]:
    source, batch_size, shapes = data
    if source.endswith(".npz"):
        return load_npz(Path(source))
    if source not in ("random", "zero"):
        raise InvalidArgument(f"--input-data {source!r}: expected random, zero or a file that ends in .npz")
    metadata = client.model_metadata(model, version)
    return make_inputs(metadata, batch_size, parse_shapes(shapes), zero=source == "zero")


def _measure_all(client: Client, options: BenchOptions, levels: list[Level]) -> list[LevelResult]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=progress_console, transient=True) as progress:
        for level in levels:
            task = progress.add_task(f"{level}: warming up", total=None)

            def show(window: Window, level: Level = level, task_id: int = task) -> None:
                progress.update(task_id, description=f"{level}: {window.per_second:.0f} requests/s")  # type: ignore[arg-type]

            results.append(measure(client, options, level, show))
            progress.remove_task(task)
    return results


def _report(url: str, options: BenchOptions, results: list[LevelResult]) -> dict[str, object]:
    configuration = asdict(options) | {"request_bytes": len(options.request), "url": url}
    del configuration["request"]
    return {
        "machine": {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: distributions.version(name) for name in ("gristmill", "grpcio", "numpy")},
        "configuration": configuration,
        "levels": [asdict(result) for result in results],
    }


def _tables(results: list[LevelResult], options: BenchOptions) -> list[Table]:
    """What the callers saw, and where the server spent the time; two tables, since one would not fit 80 columns."""
    callers = Table(title=f"{options.model}: what its callers see (latency in us)", box=box.SIMPLE_HEAD)
    _add_columns(callers, "Load", "infer/s", "avg", "p50", "p90", "p95", "p99", "Notes")
    server = Table(title="where the server spends it (mean us per request)", box=box.SIMPLE_HEAD)
    _add_columns(server, "Load", "queue", "input", "infer", "output", "rows/batch")
    for result in results:
        latency, split = result.latency, result.server
        percentiles = (latency.mean_us, latency.p50_us, latency.p90_us, latency.p95_us, latency.p99_us)
        notes = [f"{count} {status}" for status, count in result.errors.items()]
        if not result.stable:
            notes.append("unstable")
        texts = (f"{value:.0f}" for value in percentiles)
        callers.add_row(result.level, f"{result.rows_per_second:.1f}", *texts, ", ".join(notes))
        parts = (split.queue_us, split.compute_input_us, split.compute_infer_us, split.compute_output_us)
        server.add_row(result.level, *(f"{value:.0f}" for value in parts), f"{split.mean_batch:.1f}")
    return [callers, server]


def _add_columns(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="left" if name in ("Load", "Notes") else "right", no_wrap=name != "Notes")
