# SPDX-License-Identifier: Apache-2.0
"""Requests per second, and CPU per request, where the model costs next to nothing: what is left is the server.

A 16-64-32-1 MLP, one row a request. Gristmill stands beside two floors and the ceiling of its front end, all on core 0
in turns, with the load on core 1.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from bench.client import BenchClient, WrongAnswerError, mean_batch, output_bytes
from bench.floors.build import build_floor
from bench.frames import grpc_frame, infer_request
from bench.h2load import Load, latency_percentiles_us, run_h2load
from bench.machine import onnxruntime_library
from bench.models import MLP_WIDTHS, publish_mlp
from bench.server import PinnedServer, gristmill_command, pinned_server
from bench.statistics import median_ratio

SERVER_CORE, LOAD_CORE = 0, 1
#: (connections, streams on each): one call at a time, and two that saturate the server.
LOADS = ((1, 1), (4, 16), (4, 64))
#: By front end; the ratios are of the first.
GRISTMILL = {"native": "gristmill, native", "aio": "gristmill, aio"}
_CONFIG = "max_batch_size: 256\ndynamic_batching { }\n"
# Of the uncounted runs: the first one's requests, and how much smaller than a counted run the last may be.
_FIRST_REQUESTS = 500
_ENOUGH = 3


@dataclass(frozen=True)
class Effort:
    """How often each server is loaded at each number of streams, and for how long."""

    rounds: int
    seconds: float


@dataclass(frozen=True)
class RequestsResult:
    """One server at one concurrency: medians over the rounds.

    The ratios compare Gristmill with this server, as medians over neighbouring runs: above 1 Gristmill answers more
    requests per second, or takes more CPU for each. `core_used`: the share of its core that the server kept busy; well
    below 1 with many streams, the client was the limit. The percentiles are of one further run. `mean_batch`: None
    where the server does not count.
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
    mean_batch: float | None
    runs_requests_per_s: list[float]
    runs_cpu_us_per_request: list[float]


@dataclass
class _Target:
    """A running server, and what its runs at the present concurrency gave."""

    name: str
    server: PinnedServer
    scratch: Path
    requests: int = _FIRST_REQUESTS
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def calibrate(self, frame: Path, at_once: tuple[int, int], seconds: float) -> None:
        """Begin another concurrency: warm up, and find how many requests fill `seconds`. Raises as load() does."""
        self.requests = _FIRST_REQUESTS
        while True:
            self.load(frame, at_once)
            ran = self.requests
            self.requests = max(int(self.rates[-1] * seconds), _FIRST_REQUESTS)
            for runs in (self.rates, self.cpu_us, self.batches):
                runs.clear()
            # The rate of a short run is mostly that of its ramps.
            if ran * _ENOUGH >= self.requests:
                return

    def load(self, frame: Path, at_once: tuple[int, int]) -> None:
        """One run. Raises H2loadError, or WrongAnswerError if calls failed in gRPC."""
        load = Load(frame, self.requests, *at_once)
        with ExitStack() as stack:
            client = stack.enter_context(BenchClient(self.server.port)) if self.name in GRISTMILL.values() else None
            before = client.counts("mlp") if client else None
            cpu_before = self.server.cpu_s()
            result = run_h2load(self.server.port, load, LOAD_CORE)
            cpu_s = self.server.cpu_s() - cpu_before
            if client and before:
                self.batches.append(mean_batch(before, client.counts("mlp")))
        self.rates.append(result.requests_per_s)
        self.cpu_us.append(cpu_s / result.requests * 1e6)

    def percentiles_us(self, frame: Path, at_once: tuple[int, int]) -> tuple[float, float]:
        """p50 and p99 of one more run. Raises H2loadError."""
        load = Load(frame, self.requests, *at_once)
        p50, p99 = latency_percentiles_us(self.server.port, load, LOAD_CORE, (50, 99), self.scratch / "h2load.log")
        return p50, p99


@dataclass(frozen=True)
class Setup:
    """What a run needs on disk, and the one request that it repeats."""

    repository: Path
    model: Path
    frame: Path
    request: bytes


def prepare(scratch: Path) -> Setup:
    """Write the model's repository and the request's frame into an empty directory."""
    model = publish_mlp(scratch / "models", _CONFIG)
    rows = np.random.default_rng(0).normal(size=(1, MLP_WIDTHS[0])).astype(np.float32)
    request = infer_request("mlp", {"INPUT0": rows})
    frame = scratch / "request.frame"
    frame.write_bytes(grpc_frame(request))
    return Setup(scratch / "models", model, frame, request)


def run(effort: Effort) -> list[RequestsResult]:
    """Bench all servers. Raises BuildError, ServerError, H2loadError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory, ExitStack() as stack:
        scratch = Path(directory)
        setup = prepare(scratch)
        targets = []
        for frontend, name in GRISTMILL.items():
            command = gristmill_command(setup.repository, frontend)
            targets.append(_Target(name, stack.enter_context(pinned_server(command, SERVER_CORE)), scratch))
        reply = scratch / "reply"
        with BenchClient(targets[0].server.port) as client:
            client.require_ready("mlp")
            reply.write_bytes(client.infer(setup.request))
        for peer, command in _peers(setup.model, reply):
            targets.append(_Target(peer, stack.enter_context(pinned_server(command, SERVER_CORE)), scratch))
        for target in targets:
            _require_answer(target, setup.request, reply.read_bytes())
        return [result for at_once in LOADS for result in _run_load(targets, setup.frame, at_once, effort)]


def _peers(model: Path, reply: Path) -> list[tuple[str, list[str]]]:
    """The servers to stand beside, by name, from what answers like Gristmill to what does least."""
    library = onnxruntime_library()
    return [
        ("grpc.aio, no work", [sys.executable, "-m", "bench.floors.aio_floor", "0", str(reply)]),
        ("hot path floor", [str(build_floor("hot_path_floor")), "0", str(reply), str(model), str(library)]),
        ("HTTP/2 floor", [str(build_floor("h2_floor")), "0", str(reply)]),
    ]


def _require_answer(target: _Target, request: bytes, reply: bytes) -> None:
    """Raise WrongAnswerError unless `target` answers as Gristmill did."""
    with BenchClient(target.server.port) as client:
        answer, expected = (
            np.frombuffer(b"".join(output_bytes(response)), dtype=np.float32)
            for response in (client.infer(request), reply)
        )
    if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=1e-4, atol=1e-6):
        raise WrongAnswerError(f"{target.name} answers {answer.tolist()}, gristmill {expected.tolist()}")


def _run_load(
    targets: Sequence[_Target], frame: Path, at_once: tuple[int, int], effort: Effort
) -> list[RequestsResult]:
    for target in targets:
        target.calibrate(frame, at_once, effort.seconds)
    for _ in range(effort.rounds):
        for target in targets:
            target.load(frame, at_once)
    return [_summarise(target, targets[0], at_once, target.percentiles_us(frame, at_once)) for target in targets]


def _summarise(
    target: _Target, gristmill: _Target, at_once: tuple[int, int], percentiles_us: tuple[float, float]
) -> RequestsResult:
    return RequestsResult(
        server=target.name,
        connections=at_once[0],
        streams=at_once[1],
        requests_per_s=median(target.rates),
        cpu_us_per_request=median(target.cpu_us),
        core_used=median(rate * cpu_us / 1e6 for rate, cpu_us in zip(target.rates, target.cpu_us, strict=True)),
        p50_us=percentiles_us[0],
        p99_us=percentiles_us[1],
        gristmill_rate_ratio=median_ratio(gristmill.rates, target.rates),
        gristmill_cpu_ratio=median_ratio(gristmill.cpu_us, target.cpu_us),
        mean_batch=median(target.batches) if target.batches else None,
        runs_requests_per_s=list(target.rates),
        runs_cpu_us_per_request=list(target.cpu_us),
    )


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {
            "core": SERVER_CORE,
            "frontends": list(GRISTMILL),
            "io_threads": 1,
            "intra_op_threads": 1,
            "config.pbtxt": _CONFIG,
        },
        "load": {"core": LOAD_CORE, "connections x streams": [list(load) for load in LOADS]},
        "model": {"widths": list(MLP_WIDTHS), "rows_per_request": 1},
        **asdict(effort),
    }
