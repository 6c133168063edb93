# SPDX-License-Identifier: Apache-2.0
"""Requests per second, and CPU per request, where the model costs next to nothing: what is left is the server.

One row of the MLP a request, in a closed loop. Gristmill stands beside other servers, floors and the ceiling of its
front end (mlp_servers.py), all on core 0 in turns, with the load on core 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.closed_loop import ClosedLoop, Target, run_in_turns
from bench.effort import Effort
from bench.load import mlp_servers
from bench.load.mlp_servers import H2_FLOOR_NAME, LOAD_CORE, NATIVE, SERVER_CORE
from bench.models import MLP_WIDTHS
from bench.statistics import median_ratio

#: (connections, streams on each): one call at a time, and 16, 64 and 256, of which 64 saturate the server.
LOADS = ((1, 1), (4, 4), (4, 16), (4, 64))


@dataclass(frozen=True)
class RequestsResult:
    """One server at one concurrency: medians over the rounds.

    The ratios compare Gristmill with this server, as medians over neighbouring runs: above 1 Gristmill answers more
    requests per second, or takes more CPU for each. `cpu_to_h2_floor`: this server's CPU per request to the HTTP/2
    floor's. `core_used`: the share of its core that the server kept busy; well below 1 with many streams, the client
    was the limit. The percentiles are of one further run. `mean_batch`: None where the server does not count.
    """

    server: str
    connections: int
    streams: int
    requests_per_s: float
    cpu_us_per_request: float
    core_used: float
    p50_us: float
    p99_us: float
    gristmill_rate_ratio: float
    gristmill_cpu_ratio: float
    cpu_to_h2_floor: float
    mean_batch: float | None
    runs_requests_per_s: list[float]
    runs_cpu_us_per_request: list[float]


def run(effort: Effort) -> list[RequestsResult]:
    """Bench all servers. Raises BuildError, ServerError, H2loadError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        with mlp_servers.running_servers(scratch, mlp_servers.ALL) as targets:
            return [
                result
                for connections, streams in LOADS
                for result in _run_load(targets, connections, streams, effort, scratch / "h2load.log")
            ]


def _run_load(
    targets: Sequence[Target], connections: int, streams: int, effort: Effort, log: Path
) -> list[RequestsResult]:
    loops = {target.name: ClosedLoop(target, connections, streams, [LOAD_CORE]) for target in targets}
    for loop in loops.values():
        loop.calibrate(effort.seconds)
    run_in_turns(list(loops.values()), effort.rounds)
    floor, gristmill = loops[H2_FLOOR_NAME], loops[NATIVE]
    return [_summarise(loop, gristmill, floor, loop.percentiles_us(log)) for loop in loops.values()]


def _summarise(
    loop: ClosedLoop, gristmill: ClosedLoop, floor: ClosedLoop, percentiles_us: tuple[float, float]
) -> RequestsResult:
    return RequestsResult(
        server=loop.target.name,
        connections=loop.connections,
        streams=loop.streams,
        requests_per_s=median(loop.rates),
        cpu_us_per_request=median(loop.cpu_us),
        core_used=loop.cores_used,
        p50_us=percentiles_us[0],
        p99_us=percentiles_us[1],
        gristmill_rate_ratio=median_ratio(gristmill.rates, loop.rates),
        gristmill_cpu_ratio=median_ratio(gristmill.cpu_us, loop.cpu_us),
        cpu_to_h2_floor=median_ratio(loop.cpu_us, floor.cpu_us),
        mean_batch=median(loop.batches) if loop.batches else None,
        runs_requests_per_s=list(loop.rates),
        runs_cpu_us_per_request=list(loop.cpu_us),
    )


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "io_threads": 1, "intra_op_threads": 1, "config.pbtxt": mlp_servers.CONFIG},
        "load": {"core": LOAD_CORE, "connections x streams": [list(load) for load in LOADS]},
        "model": {"widths": list(MLP_WIDTHS), "rows_per_request": 1},
        **asdict(effort),
    }
