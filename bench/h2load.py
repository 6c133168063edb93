# SPDX-License-Identifier: Apache-2.0
"""Load by h2load (Debian: nghttp2-client), and what it reports.

h2load sees HTTP alone: whether calls failed in gRPC has to be asked of the server.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_LIMIT_S = 120.0

_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s|m|h), ([\d.]+) req/s")
_REQUESTS = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded")
_LATENCY = re.compile(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s|m|h)\s")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class H2loadError(Exception):
    """h2load did not run, or not every request was answered."""


@dataclass(frozen=True)
class Load:
    """A closed loop: `connections` x `streams` calls at a time until `requests` are answered.

    `encoding`: of the message in `frame`, None for an uncompressed one.
    """

    frame: Path
    requests: int
    connections: int
    streams: int
    encoding: str | None = None


@dataclass(frozen=True)
class LoadResult:
    """What h2load reports. `mean_latency_us` is over all requests, ramp-up included."""

    requests: int
    wall_s: float
    mean_latency_us: float

    @property
    def requests_per_s(self) -> float:
        """Answered per second of the whole run."""
        return self.requests / self.wall_s


def parse_report(text: str) -> LoadResult:
    """Read h2load's report. Raises H2loadError if it is none, or if a request was not answered with status 200."""
    finished, requests, latency = (pattern.search(text) for pattern in (_FINISHED, _REQUESTS, _LATENCY))
    if finished is None or requests is None or latency is None:
        raise H2loadError(f"expected h2load's report, got:\n{text}")
    total, done, succeeded = (int(group) for group in requests.groups())
    if succeeded != total or total == 0:
        raise H2loadError(f"of {total} requests {done} were answered and {succeeded} succeeded:\n{text}")
    # h2load rounds the duration to 10 ms; the rate times the count is finer.
    wall_s = total / float(finished[3]) if float(finished[3]) > 0 else float(finished[1]) * _SECONDS[finished[2]]
    return LoadResult(total, wall_s, float(latency[1]) * _SECONDS[latency[2]] * 1e6)


def parse_latencies_us(log: str) -> list[float]:
    """The latency of each request from h2load's log. Raises H2loadError if a request was not answered with 200."""
    # Of each request: when it was sent, in microseconds; the HTTP status; how long its answer took, in microseconds.
    lines = [line.split("\t") for line in log.splitlines()]
    if any(len(line) != 3 or line[1] != "200" for line in lines):
        raise H2loadError("expected lines of time, 200 and latency in h2load's log, got others")
    return [float(latency_us) for _, _, latency_us in lines]


def latency_percentiles_us(
    port: int, load: Load, cores: Sequence[int], percentiles: Sequence[float], log: Path
) -> list[float]:
    """Of the requests of a run of their own, since writing `log` costs the client time. Raises H2loadError."""
    log.unlink(missing_ok=True)  # h2load appends
    run_h2load(port, load, cores, f"--log-file={log}")
    latencies_us = parse_latencies_us(log.read_text())
    if len(latencies_us) != load.requests:
        raise H2loadError(f"expected {load.requests} lines in h2load's log, got {len(latencies_us)}")
    return [float(value) for value in np.percentile(latencies_us, percentiles)]


def h2load_command(port: int, load: Load, cores: Sequence[int], *options: str) -> list[str]:
    """What puts `load` on 127.0.0.1:`port` from one thread on `cores`."""
    command = ["taskset", "-c", ",".join(map(str, cores)), "h2load", "-t", "1", "-d", str(load.frame), *options]
    command += ["-n", str(load.requests), "-c", str(load.connections), "-m", str(load.streams)]
    if load.encoding is not None:
        command += ["-H", f"grpc-encoding: {load.encoding}"]
    return [*command, "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{METHOD}"]


def run_h2load(port: int, load: Load, cores: Sequence[int], *options: str) -> LoadResult:
    """Put `load` on 127.0.0.1:`port` from one thread on `cores`. Raises H2loadError."""
    command = h2load_command(port, load, cores, *options)
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except FileNotFoundError as error:
        raise H2loadError(
            f"{error.filename} is missing; on Debian: apt-get install nghttp2-client util-linux"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise H2loadError(f"{' '.join(command)} did not end within {_LIMIT_S:g} s") from error
    return parse_report(process.stdout + process.stderr)
