# SPDX-License-Identifier: Apache-2.0
"""The scheduler that is not tuned, beside every combination of a fixed batch size and delay, load by load.

The model takes time but no CPU (2 ms for a row, 4 ms for 16), as one on an accelerator does; no deadlines. All arms are
models of one server and see the same arrivals, in turns.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from bench.client import BenchClient
from bench.closed_loop import ClosedLoop, Target
from bench.effort import Effort
from bench.frames import grpc_frame, infer_request
from bench.load.open_loop import arrivals_ns, run_open_loop
from bench.models import publish_sim
from bench.server import gristmill_command, pinned_server

SERVER_CORE, LOAD_CORE = 0, 1
LOADS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
ADAPTIVE = "adaptive"
_SIZES = (4, 8, 16)
#: 1 is as good as none; 0 would be adaptive.
_DELAYS_US = (1, 500, 1000, 2000, 5000)
_TEXT = "input X FP32 -1 16\noutput Y FP32 -1 16 = identity X\nlatency_us 1:2000 16:4000\n"
_CONNECTIONS, _STREAMS = 4, 16


@dataclass(frozen=True)
class SweepResult:
    """One load. Latencies are medians over the rounds; `best` has the smallest p99 of the fixed arms.

    `completed`: calls answered until the last arrival, to those of the fixed arm that has answered most.
    """

    load: float
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    best: str
    best_p50_ms: float
    best_p99_ms: float
    p99_to_best: float
    completed_to_best: float
    worst_p99_ms: float


@dataclass
class _Runs:
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    completed: list[float] = field(default_factory=list)


def arms() -> dict[str, str]:
    """The configuration of each arm, by the name of its model."""
    fixed = {
        f"batch_{size}_delay_{delay_us}us": (
            f"max_batch_size: {size} dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}"
        )
        for size, delay_us in itertools.product(_SIZES, _DELAYS_US)
    }
    return {ADAPTIVE: "max_batch_size: 16 dynamic_batching { }", **fixed}


def run(effort: Effort) -> list[SweepResult]:
    """Bench all arms. Raises BuildError, ServerError, H2loadError, OpenLoopError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        for name, config in arms().items():
            publish_sim(scratch / "models", name, _TEXT, config)
        with pinned_server(gristmill_command(scratch / "models", "native"), SERVER_CORE) as server:
            frames = {}
            with BenchClient(server.port) as client:
                for name in arms():
                    client.require_ready(name)
                    frames[name] = scratch / f"{name}.frame"
                    frames[name].write_bytes(grpc_frame(infer_request(name, {"X": np.ones((1, 16), np.float32)})))
            loop = ClosedLoop(Target(ADAPTIVE, server, frames[ADAPTIVE]), _CONNECTIONS, _STREAMS, [LOAD_CORE])
            loop.calibrate(effort.seconds)
            loop.run()
            return [_run_load(server.port, frames, load, loop.rates[-1], effort, scratch) for load in LOADS]


def _run_load(
    port: int, frames: dict[str, Path], load: float, saturation: float, effort: Effort, scratch: Path
) -> SweepResult:
    runs = {name: _Runs() for name in frames}
    for seed in range(effort.rounds):
        due_ns = arrivals_ns(saturation * load, effort.seconds, seed)
        for name, frame in frames.items():
            latency_ms = run_open_loop(port, frame, due_ns, [LOAD_CORE], scratch).latency_us / 1000
            p50_ms, p99_ms = np.percentile(latency_ms, (50, 99))
            runs[name].p50_ms.append(float(p50_ms))
            runs[name].p99_ms.append(float(p99_ms))
            runs[name].completed.append(float((due_ns / 1e6 + latency_ms <= due_ns[-1] / 1e6).sum()))
    p99_ms = {name: median(of_arm.p99_ms) for name, of_arm in runs.items()}
    completed = {name: median(of_arm.completed) for name, of_arm in runs.items()}
    fixed = [name for name in frames if name != ADAPTIVE]
    best = min(fixed, key=lambda name: p99_ms[name])
    return SweepResult(
        load=load,
        calls_per_s=saturation * load,
        p50_ms=median(runs[ADAPTIVE].p50_ms),
        p99_ms=p99_ms[ADAPTIVE],
        best=best,
        best_p50_ms=median(runs[best].p50_ms),
        best_p99_ms=p99_ms[best],
        p99_to_best=p99_ms[ADAPTIVE] / p99_ms[best],
        completed_to_best=completed[ADAPTIVE] / max(completed[name] for name in fixed),
        worst_p99_ms=max(p99_ms[name] for name in fixed),
    )


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "io_threads": 1, "model": _TEXT, "config.pbtxt": arms()},
        "load": {"core": LOAD_CORE, "connections": _CONNECTIONS, "arrivals": "Poisson"},
        **asdict(effort),
    }
