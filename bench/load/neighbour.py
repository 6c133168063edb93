# SPDX-License-Identifier: Apache-2.0
"""A light model's latency alone, and beside a model that could use all of the core that both have.

Light: the MLP, at random times, a hundredth of what the server answers. Heavy: magika in batches, in a closed loop.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from bench.client import BenchClient
from bench.effort import Effort
from bench.frames import grpc_frame, infer_request
from bench.h2load import Load, h2load_command
from bench.load.open_loop import arrivals_ns, run_open_loop
from bench.machine import ROOT
from bench.models import MLP_WIDTHS, copy_model, find_sample, publish_mlp
from bench.server import gristmill_command, pinned_server

SERVER_CORE, LOAD_CORE = 0, 1
RATE_PER_S = 2000.0
_HEAVY, _HEAVY_BATCH = "magika", 16
_CONFIG = f"max_batch_size: {_HEAVY_BATCH} dynamic_batching {{ }}"
#: Of the heavy model, far more than are answered while the light one is measured.
_HEAVY_REQUESTS = 10_000_000


@dataclass(frozen=True)
class NeighbourResult:
    """Medians over the rounds. `p99_to_bound`: beside the heavy model, to twice the p99 alone plus one heavy batch."""

    calls_per_s: float
    alone_p50_ms: float
    alone_p99_ms: float
    beside_p50_ms: float
    beside_p99_ms: float
    heavy_batch_ms: float
    p99_to_bound: float


@dataclass
class _Runs:
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def note(self, latency_us: np.ndarray) -> None:
        p50_us, p99_us = np.percentile(latency_us, (50, 99))
        self.p50_ms.append(float(p50_us) / 1000)
        self.p99_ms.append(float(p99_us) / 1000)


def run(effort: Effort) -> list[NeighbourResult]:
    """Bench both. Raises BuildError, MissingModelError, ServerError, OpenLoopError or WrongAnswerError."""
    sample = find_sample(ROOT / "model_repo", _HEAVY)
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        publish_mlp(scratch / "models", "max_batch_size: 256 dynamic_batching { }")
        copy_model(sample, scratch / "models", "heavy", _CONFIG)
        light, heavy = scratch / "light.frame", scratch / "heavy.frame"
        light.write_bytes(grpc_frame(infer_request("mlp", {"INPUT0": np.ones((1, MLP_WIDTHS[0]), np.float32)})))
        heavy.write_bytes(grpc_frame(infer_request("heavy", sample.rows(1))))
        with pinned_server(gristmill_command(scratch / "models", "native"), SERVER_CORE) as server:
            with BenchClient(server.port) as client:
                client.require_ready("mlp")
                client.require_ready("heavy")
            alone, beside, batches_ms = _Runs(), _Runs(), []
            for seed in range(effort.rounds):
                due_ns = arrivals_ns(RATE_PER_S, effort.seconds, seed)
                alone.note(run_open_loop(server.port, light, due_ns, [LOAD_CORE], scratch).latency_us)
                load = Load(heavy, _HEAVY_REQUESTS, connections=2, streams=2 * _HEAVY_BATCH)
                with (
                    BenchClient(server.port) as client,
                    subprocess.Popen(
                        h2load_command(server.port, load, [LOAD_CORE]), stdout=subprocess.DEVNULL
                    ) as other,
                ):
                    before = client.counts("heavy")
                    beside.note(run_open_loop(server.port, light, due_ns, [LOAD_CORE], scratch).latency_us)
                    after = client.counts("heavy")
                    other.terminate()
                batches_ms.append((after.compute_ns - before.compute_ns) / (after.executions - before.executions) / 1e6)
    bound_ms = 2 * median(alone.p99_ms) + median(batches_ms)
    return [
        NeighbourResult(
            calls_per_s=RATE_PER_S,
            alone_p50_ms=median(alone.p50_ms),
            alone_p99_ms=median(alone.p99_ms),
            beside_p50_ms=median(beside.p50_ms),
            beside_p99_ms=median(beside.p99_ms),
            heavy_batch_ms=median(batches_ms),
            p99_to_bound=median(beside.p99_ms) / bound_ms,
        )
    ]


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "io_threads": 1, "heavy": _HEAVY, "config.pbtxt": _CONFIG},
        "load": {"core": LOAD_CORE, "arrivals": "Poisson"},
        **asdict(effort),
    }
