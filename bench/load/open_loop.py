# SPDX-License-Identifier: Apache-2.0
"""Latency at a rate that does not depend on the server: calls arrive at random times, however it keeps up.

Each server of the MLP gets half, then four fifths of what it answers in a closed loop in the same run. Latency counts
from when a call was due, so a stall counts for every call that it delays (open_loop.cc).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from bench.build import OPEN_LOOP, build
from bench.closed_loop import ClosedLoop, Target, run_in_turns
from bench.effort import Effort
from bench.load import mlp_servers
from bench.load.mlp_servers import AIO, GRPC_CPP, HOT_PATH_NAME, LOAD_CORE, NATIVE, SERVER_CORE, TRITON
from bench.statistics import median_ratio

SERVERS = (NATIVE, AIO, TRITON, GRPC_CPP, HOT_PATH_NAME)
SHARES = (0.5, 0.8)
_CONNECTIONS = 4
#: That saturate a server: on each connection, in a closed loop.
_STREAMS = 64
_LIMIT_S = 120.0


class OpenLoopError(Exception):
    """The generator failed, or not every call was answered."""


@dataclass(frozen=True)
class OpenLoopResult:
    """One server at one share of its own saturation: medians over the rounds.

    `sent_late_p99_us`: by how much the generator itself was late; it is part of the latencies. The ratios are of this
    server's latency to Gristmill's at the same share, as medians over neighbouring runs.
    """

    server: str
    share: float
    saturation_per_s: float
    offered_per_s: float
    p50_us: float
    p99_us: float
    core_used: float
    sent_late_p99_us: float
    p50_to_gristmill: float
    p99_to_gristmill: float
    runs_p50_us: list[float]
    runs_p99_us: list[float]


@dataclass(frozen=True)
class Latencies:
    """Of the calls of one run, in the order in which they were due. NaN: not answered."""

    sent_late_us: np.ndarray
    latency_us: np.ndarray


@dataclass
class _Runs:
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    sent_late_p99_us: list[float] = field(default_factory=list)
    core_used: list[float] = field(default_factory=list)


def arrivals_ns(rate_per_s: float, seconds: float, seed: int) -> np.ndarray:
    """When calls are due, from the start: a Poisson process. Raises ValueError if there would be none."""
    count = int(rate_per_s * seconds)
    if count < 1:
        raise ValueError(f"expected at least one call, got {rate_per_s:g} calls/s for {seconds:g} s")
    gaps_ns = np.random.default_rng(seed).exponential(1e9 / rate_per_s, count)
    return np.cumsum(gaps_ns).astype(np.int64)


def read_latencies(path: Path, calls: int, may_fail: bool = False) -> Latencies:
    """What open_loop.cc wrote. Raises OpenLoopError unless it is of `calls` calls, each answered after it was sent.

    With `may_fail`, calls may also be without an answer.
    """
    figures = np.fromfile(path, dtype=np.int64)
    if figures.size != 2 * calls:
        raise OpenLoopError(f"expected two figures for each of {calls} calls, got {figures.size}")
    sent_late_ns, latency_ns = figures.reshape(-1, 2).T
    answered = latency_ns >= 0
    if (sent_late_ns < 0).any() or (latency_ns < sent_late_ns)[answered].any() or not (may_fail or answered.all()):
        raise OpenLoopError("a call was sent before it was due, or answered before it was sent")
    return Latencies(sent_late_ns / 1000, np.where(answered, latency_ns, np.nan) / 1000)


def run_open_loop(
    port: int, frame: Path, due_ns: np.ndarray, cores: Sequence[int], scratch: Path, deadline_us: int = 0
) -> Latencies:
    """Send `frame` to 127.0.0.1:`port` whenever a call is due. Raises BuildError or OpenLoopError.

    With `deadline_us`, the server is told when it must answer, and calls may fail.
    """
    schedule, results = scratch / "schedule", scratch / "latencies"
    due_ns.astype(np.int64).tofile(schedule)
    command = ["taskset", "-c", ",".join(map(str, cores)), str(build(OPEN_LOOP)), str(port), str(_CONNECTIONS)]
    command += [str(frame), str(schedule), str(results), *([str(deadline_us)] if deadline_us else [])]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OpenLoopError(f"{' '.join(command)} did not end within {_LIMIT_S:g} s") from error
    if process.returncode != 0:
        raise OpenLoopError(f"{' '.join(command)} failed: {process.stderr}")
    return read_latencies(results, due_ns.size, may_fail=deadline_us > 0)


def run(effort: Effort) -> list[OpenLoopResult]:
    """Bench all servers. Raises BuildError, ServerError, H2loadError, OpenLoopError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        with mlp_servers.running_servers(scratch, SERVERS) as targets:
            loops = [ClosedLoop(target, _CONNECTIONS, _STREAMS, [LOAD_CORE]) for target in targets]
            for loop in loops:
                loop.calibrate(effort.seconds / 2)
            run_in_turns(loops, effort.rounds)
            saturation = {loop.target.name: median(loop.rates) for loop in loops}
            return [result for share in SHARES for result in _run_share(targets, share, saturation, effort, scratch)]


def _run_share(
    targets: Sequence[Target], share: float, saturation: dict[str, float], effort: Effort, scratch: Path
) -> list[OpenLoopResult]:
    runs = {target.name: _Runs() for target in targets}
    for seed in range(effort.rounds):
        for target in targets:
            due_ns = arrivals_ns(saturation[target.name] * share, effort.seconds, seed)
            cpu_before = target.server.cpu_s()
            latencies = run_open_loop(target.server.port, target.frame, due_ns, [LOAD_CORE], scratch)
            cpu_s = target.server.cpu_s() - cpu_before
            p50_us, p99_us = np.percentile(latencies.latency_us, (50, 99))
            of_target = runs[target.name]
            of_target.p50_us.append(float(p50_us))
            of_target.p99_us.append(float(p99_us))
            of_target.sent_late_p99_us.append(float(np.percentile(latencies.sent_late_us, 99)))
            of_target.core_used.append(cpu_s / (float(due_ns[-1]) / 1e9))
    gristmill = runs[NATIVE]
    return [
        OpenLoopResult(
            server=name,
            share=share,
            saturation_per_s=saturation[name],
            offered_per_s=saturation[name] * share,
            p50_us=median(of_server.p50_us),
            p99_us=median(of_server.p99_us),
            core_used=median(of_server.core_used),
            sent_late_p99_us=median(of_server.sent_late_p99_us),
            p50_to_gristmill=median_ratio(of_server.p50_us, gristmill.p50_us),
            p99_to_gristmill=median_ratio(of_server.p99_us, gristmill.p99_us),
            runs_p50_us=of_server.p50_us,
            runs_p99_us=of_server.p99_us,
        )
        for name, of_server in runs.items()
    ]


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "io_threads": 1, "intra_op_threads": 1, "config.pbtxt": mlp_servers.CONFIG},
        "load": {
            "core": LOAD_CORE,
            "connections": _CONNECTIONS,
            "arrivals": "Poisson",
            "saturation": f"h2load, {_CONNECTIONS} x {_STREAMS}",
        },
        **asdict(effort),
    }
