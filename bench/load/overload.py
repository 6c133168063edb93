# SPDX-License-Identifier: Apache-2.0
"""Answers in time under overload: deadlines told to the server, beside a fixed size and delay that knows of none.

The model takes time but no CPU (2 ms for a row, 4 ms for 16), as one on an accelerator does. Every call must be
answered within five times the run of a single row. Both arms see the same arrivals, in turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
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
LOADS = (0.5, 0.8, 1.0, 1.5, 3.0)
DEADLINE_MS = 10
ADAPTIVE, FIXED = "deadlines told", "fixed delay"
_TEXT = "input X FP32 -1 16\noutput Y FP32 -1 16 = identity X\nlatency_us 1:2000 16:4000\n"
#: The delay that the arm without deadlines has: a fifth of what its callers allow.
_CONFIGS = {
    ADAPTIVE: "max_batch_size: 16 dynamic_batching { }",
    FIXED: "max_batch_size: 16 dynamic_batching { max_queue_delay_microseconds: 2000 }",
}
_MODELS = {ADAPTIVE: "adaptive", FIXED: "fixed"}
_CONNECTIONS, _STREAMS = 4, 16


@dataclass(frozen=True)
class OverloadResult:
    """One arm at one load; medians over the rounds. `goodput`: answers in time, to the rate at saturation."""

    arm: str
    load: float
    saturation_per_s: float
    goodput: float
    refused: float
    p50_ms: float
    p99_ms: float
    runs_goodput: list[float]


@dataclass
class _Runs:
    goodput: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def run(effort: Effort) -> list[OverloadResult]:
    """Bench both arms. Raises BuildError, ServerError, H2loadError, OpenLoopError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        for arm, model in _MODELS.items():
            publish_sim(scratch / "models", model, _TEXT, _CONFIGS[arm])
        with pinned_server(gristmill_command(scratch / "models", "native"), SERVER_CORE) as server:
            frames = {}
            with BenchClient(server.port) as client:
                for arm, model in _MODELS.items():
                    client.require_ready(model)
                    frames[arm] = scratch / f"{model}.frame"
                    frames[arm].write_bytes(grpc_frame(infer_request(model, {"X": np.ones((1, 16), np.float32)})))
            loop = ClosedLoop(Target(ADAPTIVE, server, frames[ADAPTIVE]), _CONNECTIONS, _STREAMS, [LOAD_CORE])
            loop.calibrate(effort.seconds)
            for _ in range(effort.rounds):
                loop.run()
            saturation = median(loop.rates)
            return [
                result for load in LOADS for result in _run_load(server.port, frames, load, saturation, effort, scratch)
            ]


def _run_load(
    port: int, frames: dict[str, Path], load: float, saturation: float, effort: Effort, scratch: Path
) -> list[OverloadResult]:
    runs = {arm: _Runs() for arm in frames}
    for seed in range(effort.rounds):
        due_ns = arrivals_ns(saturation * load, effort.seconds, seed)
        for arm, frame in frames.items():
            deadline_us = DEADLINE_MS * 1000 if arm == ADAPTIVE else 0
            answers = run_open_loop(port, frame, due_ns, [LOAD_CORE], scratch, deadline_us=deadline_us)
            _note(runs[arm], answers.latency_us / 1000, float(due_ns[-1]) / 1e9 * saturation)
    return [
        OverloadResult(
            arm=arm,
            load=load,
            saturation_per_s=saturation,
            goodput=median(of_arm.goodput),
            refused=median(of_arm.refused),
            p50_ms=median(of_arm.p50_ms),
            p99_ms=median(of_arm.p99_ms),
            runs_goodput=of_arm.goodput,
        )
        for arm, of_arm in runs.items()
    ]


def _note(runs: _Runs, latency_ms: np.ndarray, most: float) -> None:
    answered = latency_ms[np.isfinite(latency_ms)]
    runs.goodput.append(float((answered <= DEADLINE_MS).sum() / most))
    runs.refused.append(1 - answered.size / latency_ms.size)
    p50_ms, p99_ms = np.percentile(answered, (50, 99)) if answered.size else (np.inf, np.inf)
    runs.p50_ms.append(float(p50_ms))
    runs.p99_ms.append(float(p99_ms))


def goodput_of(results: Sequence[OverloadResult], arm: str) -> list[float]:
    """By load, ascending."""
    return [result.goodput for result in results if result.arm == arm]


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "io_threads": 1, "model": _TEXT, "config.pbtxt": _CONFIGS},
        "load": {"core": LOAD_CORE, "connections": _CONNECTIONS, "arrivals": "Poisson", "deadline_ms": DEADLINE_MS},
        **asdict(effort),
    }
