# SPDX-License-Identifier: Apache-2.0
"""A server under as much load as a number of calls at a time makes, measured run by run."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.client import BenchClient, mean_batch
from bench.h2load import Load, latency_percentiles_us, run_h2load
from bench.server import PinnedServer

# Of the uncounted runs: the first one's requests, and how much smaller than a counted run the last may be.
_FIRST_REQUESTS = 500
_ENOUGH = 3
# So that one in a hundred is some dozens.
_REQUESTS_FOR_PERCENTILES = 5_000


@dataclass(frozen=True)
class Target:
    """A running server, and the request that it is asked again and again.

    `counted_model`: the one whose statistics the server is asked for, None if it keeps none. `encoding`: of the frame.
    """

    name: str
    server: PinnedServer
    frame: Path
    counted_model: str | None = None
    encoding: str | None = None


@dataclass
class ClosedLoop:
    """Runs of h2load against `target` with `connections` x `streams` calls at a time, from `cores`.

    One entry of each list for each counted run. `batches` stays empty where the server does not count.
    """

    target: Target
    connections: int
    streams: int
    cores: Sequence[int]
    requests: int = _FIRST_REQUESTS
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    client_cpu_us: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    @property
    def cores_used(self) -> float:
        """How much of its cores the server kept busy, the median over the runs."""
        return _cores_used(self.rates, self.cpu_us)

    @property
    def client_cores_used(self) -> float:
        """As cores_used, of the load."""
        return _cores_used(self.rates, self.client_cpu_us)

    def calibrate(self, seconds: float, first_requests: int = _FIRST_REQUESTS) -> None:
        """Warm up, and find how many requests fill `seconds`. Raises as run() does."""
        least = self.connections * self.streams * 2
        self.requests = max(first_requests, least)
        while True:
            self.run()
            ran = self.requests
            self.requests = max(int(self.rates[-1] * seconds), first_requests, least)
            for runs in (self.rates, self.cpu_us, self.client_cpu_us, self.batches):
                runs.clear()
            # The rate of a short run is mostly that of its ramps.
            if ran * _ENOUGH >= self.requests:
                return

    def run(self) -> None:
        """One run. Raises H2loadError, or WrongAnswerError if calls failed in gRPC."""
        server, model = self.target.server, self.target.counted_model
        with ExitStack() as stack:
            client = stack.enter_context(BenchClient(server.port)) if model is not None else None
            before = client.counts(model) if client is not None and model is not None else None
            cpu_before, client_cpu_before = server.cpu_s(), _client_cpu_s()
            result = run_h2load(server.port, self._load(self.requests), self.cores)
            cpu_s, client_cpu_s = server.cpu_s() - cpu_before, _client_cpu_s() - client_cpu_before
            if client is not None and model is not None and before is not None:
                self.batches.append(mean_batch(before, client.counts(model)))
        self.rates.append(result.requests_per_s)
        self.cpu_us.append(cpu_s / result.requests * 1e6)
        self.client_cpu_us.append(client_cpu_s / result.requests * 1e6)

    def percentiles_us(self, log: Path) -> tuple[float, float]:
        """p50 and p99 of one more run, which writes `log`. Raises H2loadError."""
        load = self._load(max(self.requests, _REQUESTS_FOR_PERCENTILES))
        p50, p99 = latency_percentiles_us(self.target.server.port, load, self.cores, (50, 99), log)
        return p50, p99

    def _load(self, requests: int) -> Load:
        return Load(self.target.frame, requests, self.connections, self.streams, self.target.encoding)


def run_in_turns(loops: Sequence[ClosedLoop], rounds: int) -> None:
    """Each once, then each again, `rounds` times: a machine that drifts disturbs neighbouring runs alike."""
    for _ in range(rounds):
        for loop in loops:
            loop.run()


def _cores_used(rates: Sequence[float], cpu_us: Sequence[float]) -> float:
    return median(rate * per_request_us / 1e6 for rate, per_request_us in zip(rates, cpu_us, strict=True))


def _client_cpu_s() -> float:
    # Of the children that have ended: h2load is waited for, the servers are not.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
