# SPDX-License-Identifier: Apache-2.0
"""What a second event loop gives: the native front end with --io-threads 1 and 2.

Server and load share two cores. Where the load costs as much as the server, they are full with one event loop and a
second can add nothing; so the workloads differ in how much more a request costs the server than the load. A gzip
message, which the load sends ready-made and the event loop inflates, costs the load next to nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.client import BenchClient
from bench.closed_loop import ClosedLoop, Target, run_in_turns
from bench.effort import Effort
from bench.frames import grpc_frame, gzip_frame, infer_request
from bench.load.tensor_sizes import size_name
from bench.models import publish_sim
from bench.server import PinnedServer, gristmill_command, pinned_server
from bench.statistics import median_ratio

CORES = (0, 1)
IO_THREADS = (1, 2)
_CONNECTIONS, _STREAMS = 8, 8
_MODEL = "sim"
# One number for a row, so that answers cost nothing.
_TEXT = "input X FP32 -1 -1\noutput SUM FP32 -1 = row_sum X\n"
_CONFIG = "max_batch_size: 64\ndynamic_batching { }\n"
_FIRST_REQUESTS = 200


@dataclass(frozen=True)
class Workload:
    """Requests of one row of `elements` FP32."""

    elements: int
    encoding: str | None = None

    @property
    def name(self) -> str:
        """For tables and plots."""
        size = size_name(self.elements * np.dtype(np.float32).itemsize)
        return f"{size}, {self.encoding}" if self.encoding else size


WORKLOADS = (Workload(16), Workload(38_400), Workload(38_400, "gzip"))


@dataclass(frozen=True)
class ScalingResult:
    """One workload and one number of event loops: medians over the rounds.

    `server_cores` and `client_cores`: how much of the two cores each kept busy. The ratios are to one event loop, as
    medians over neighbouring runs.
    """

    workload: str
    io_threads: int
    requests_per_s: float
    server_cpu_us: float
    client_cpu_us: float
    server_cores: float
    client_cores: float
    rate_to_one: float
    cpu_to_one: float
    runs_requests_per_s: list[float]


def run(effort: Effort) -> list[ScalingResult]:
    """Bench all workloads. Raises ServerError, H2loadError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        publish_sim(scratch / "models", _MODEL, _TEXT, _CONFIG)
        one, two = (gristmill_command(scratch / "models", "native", count) for count in IO_THREADS)
        with pinned_server(one, *CORES) as with_one, pinned_server(two, *CORES) as with_two:
            servers = dict(zip(IO_THREADS, (with_one, with_two), strict=True))
            return [result for workload in WORKLOADS for result in _run_workload(workload, servers, effort, scratch)]


def _run_workload(
    workload: Workload, servers: dict[int, PinnedServer], effort: Effort, scratch: Path
) -> list[ScalingResult]:
    # Whole numbers, which gzip makes a fraction of; normal ones it could not.
    row = np.random.default_rng(0).integers(0, 8, size=(1, workload.elements)).astype(np.float32)
    request = infer_request(_MODEL, {"X": row})
    frame = scratch / "request.frame"
    frame.write_bytes(gzip_frame(request) if workload.encoding else grpc_frame(request))
    loops = {}
    for count, server in servers.items():
        with BenchClient(server.port) as client:
            client.require_ready(_MODEL)
        target = Target(workload.name, server, frame, _MODEL, workload.encoding)
        loops[count] = ClosedLoop(target, _CONNECTIONS, _STREAMS, CORES)
        loops[count].calibrate(effort.seconds, _FIRST_REQUESTS)
    run_in_turns(list(loops.values()), effort.rounds)
    return [summarise(count, loop, loops[1]) for count, loop in loops.items()]


def summarise(io_threads: int, loop: ClosedLoop, one: ClosedLoop) -> ScalingResult:
    """Of the runs with `io_threads` event loops, beside those with one."""
    return ScalingResult(
        workload=loop.target.name,
        io_threads=io_threads,
        requests_per_s=median(loop.rates),
        server_cpu_us=median(loop.cpu_us),
        client_cpu_us=median(loop.client_cpu_us),
        server_cores=loop.cores_used,
        client_cores=loop.client_cores_used,
        rate_to_one=median_ratio(loop.rates, one.rates),
        cpu_to_one=median_ratio(loop.cpu_us, one.cpu_us),
        runs_requests_per_s=list(loop.rates),
    )


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "cores": {"server": list(CORES), "load": list(CORES)},
        "server": {"model.sim": _TEXT, "config.pbtxt": _CONFIG},
        "load": {"connections": _CONNECTIONS, "streams": _STREAMS},
        "workloads": [asdict(workload) for workload in WORKLOADS],
        **asdict(effort),
    }
