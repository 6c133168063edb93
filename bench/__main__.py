# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [--quick] [NAME ...]`: run benchmarks of whole servers, print tables, write bench/results."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import matplotlib as mpl
from rich.console import Console

from bench.build import BuildError
from bench.client import WrongAnswerError
from bench.effort import Effort
from bench.h2load import H2loadError
from bench.load.open_loop import OpenLoopError
from bench.machine import describe_commit, describe_machine, describe_versions, load_average
from bench.models import MissingModelError
from bench.report import markdown, save_plot, write_json
from bench.server import ServerError

#: By module of bench.load and of bench.reports: rounds and seconds of each run, quick and otherwise.
BENCHES = {
    "mlp_requests": ((1, 0.3), (5, 0.8)),
    "open_loop": ((1, 0.4), (5, 1.5)),
    "tensor_sizes": ((1, 0.3), (5, 0.8)),
    "io_threads": ((1, 0.3), (5, 0.8)),
    "direct_share": ((2, 0.4), (5, 2.0)),
    "overload": ((1, 0.5), (3, 1.5)),
    "sweep": ((1, 0.4), (2, 1.0)),
    "neighbour": ((1, 0.5), (5, 2.0)),
    "composed": ((1, 0.3), (5, 0.8)),
    "simulation": ((1, 0.1), (5, 0.5)),
}
_ERRORS = (BuildError, MissingModelError, ServerError, H2loadError, OpenLoopError, WrongAnswerError)


def main() -> int:
    """Run what the command line asks for; the exit status: 0, 1 if a bench failed, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all without one")
    parser.add_argument("--quick", action="store_true", help="two minutes for all, with more noise")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"expected names of {', '.join(BENCHES)}, got {', '.join(sorted(unknown))}")
    if (os.cpu_count() or 1) < 2:
        print("bench: expected 2 cores, one for the server and one for the load, got 1", file=sys.stderr)
        return 1
    mpl.use("Agg")
    try:
        for name in arguments.names or BENCHES:
            run_bench(name, arguments.quick)
    except _ERRORS as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def run_bench(name: str, quick: bool) -> None:
    """Run one of BENCHES, and report it."""
    bench, report = import_module(f"bench.load.{name}"), import_module(f"bench.reports.{name}")
    facts = facts_of_run(quick)
    effort = Effort(*BENCHES[name][0 if quick else 1])
    with Console(stderr=True).status(name):
        results = bench.run(effort)
    print(f"## {name}\n\n{markdown(report.table(results))}\n")
    path = write_json(name, {**facts, "configuration": bench.configuration(effort)}, results)
    print(f"{path}\n{save_plot(name, report.plot(results))}\n", flush=True)


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
