# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [--quick]`: run the benchmarks of whole servers, print their tables, write bench/results."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from rich.console import Console

from bench.client import WrongAnswerError
from bench.floors.build import BuildError
from bench.h2load import H2loadError
from bench.load import direct_share, mlp_requests
from bench.machine import describe_commit, describe_machine, describe_versions, load_average
from bench.models import MissingModelError
from bench.report import requests_plot, requests_table, save_plot, share_plot, share_table, write_json
from bench.server import ServerError

_PIPE_COLUMNS = 140


def main() -> int:
    """Run what the command line asks for; the exit status: 0, 1 if a bench failed, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, with more noise")
    quick: bool = parser.parse_args().quick
    if (os.cpu_count() or 1) < 2:
        print("bench: expected 2 cores, one for the server and one for the load, got 1", file=sys.stderr)
        return 1
    mpl.use("Agg")
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    try:
        efforts: tuple[Any, Any] = (mlp_requests.Effort(1, 0.4), mlp_requests.Effort(5, 1.5))
        run_bench(console, quick, mlp_requests, efforts, requests_table, requests_plot)
        efforts = (direct_share.Effort(2, 0.4), direct_share.Effort(5, 2.0))
        run_bench(console, quick, direct_share, efforts, share_table, share_plot)
    except (BuildError, MissingModelError, ServerError, H2loadError, WrongAnswerError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def run_bench(console: Console, quick: bool, bench: Any, efforts: tuple[Any, Any], table: Any, plot: Any) -> None:
    """Run a module of bench.load, with the first of its efforts if `quick`, and report it."""
    name = bench.__name__.rpartition(".")[2]
    facts = facts_of_run(quick)
    effort = efforts[0] if quick else efforts[1]
    with console.status(name):
        results = bench.run(effort)
    console.print(table(results))
    path = write_json(name, {**facts, "configuration": bench.configuration(effort)}, results)
    console.print(f"{path}\n{save_plot(name, plot(results))}", highlight=False)


def facts_of_run(quick: bool) -> dict[str, Any]:
    """All that figures depend on besides a bench's own configuration; taken before it puts load on the machine."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": describe_machine(),
        "load_average_before": load_average(),
        "commit": describe_commit(),
        "versions": describe_versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
