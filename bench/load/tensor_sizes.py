# SPDX-License-Identifier: Apache-2.0
"""What it costs to take a tensor in and give it back, by its size: a simulated model that copies its input once.

The server is on core 0, the load on core 1; a memcpy of the same sizes, on core 0 in the same turns, is the measure.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.build import MEMCPY_FLOOR, build
from bench.client import BenchClient, WrongAnswerError, input_bytes, output_bytes
from bench.closed_loop import ClosedLoop, Target
from bench.effort import Effort
from bench.frames import grpc_frame, infer_request
from bench.models import publish_sim
from bench.server import PinnedServer, gristmill_command, pinned_server
from bench.statistics import median_ratio

SERVER_CORE, LOAD_CORE = 0, 1
#: 64 B, 4 KiB, 150 KiB, 1.2 MiB, 16 MiB of FP32.
ELEMENTS = (16, 1_024, 38_400, 314_573, 4_194_304)
GRISTMILL = {"native": "gristmill, native", "aio": "gristmill, aio"}
_CONNECTIONS, _STREAMS = 4, 2
_MODEL = "sim"
_TEXT = "input X FP32 -1\noutput Y FP32 -1 = identity X\n"
# Without batches, which would add a copy.
_CONFIG = "max_batch_size: 0\n"
# The largest ones take some 10 ms each.
_FIRST_REQUESTS = 20
_MEMCPY_SECONDS = 0.1


@dataclass(frozen=True)
class TensorResult:
    """One server and one size: medians over the rounds.

    `gb_per_s`: of tensor bytes, in and out together; `memcpy_gb_per_s`: of tensor bytes copied once. `cpu_in_copies`:
    how often the tensor could be copied in the CPU time of a request. `core_used`, `client_core_used`: the shares of
    their cores that server and load kept busy. The ratio compares the native front end's rate with this server's.
    """

    server: str
    tensor_bytes: int
    requests_per_s: float
    gb_per_s: float
    cpu_us_per_request: float
    core_used: float
    client_core_used: float
    memcpy_gb_per_s: float
    cpu_in_copies: float
    native_rate_ratio: float
    runs_requests_per_s: list[float]
    runs_cpu_us_per_request: list[float]


class Memcpy:
    """A process that copies when it is asked to; a context manager."""

    def __init__(self, core: int) -> None:
        """Builds the program. Raises BuildError."""
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), str(build(MEMCPY_FLOOR))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Memcpy:  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def us_per_copy(self, size_bytes: int, seconds: float) -> float:
        """Of buffers that stay the same, so that small ones are in the core's cache."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{size_bytes} {seconds}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def run(effort: Effort) -> list[TensorResult]:
    """Bench all sizes. Raises BuildError, ServerError, H2loadError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        publish_sim(scratch / "models", _MODEL, _TEXT, _CONFIG)
        with (
            pinned_server(gristmill_command(scratch / "models", "native"), SERVER_CORE) as native,
            pinned_server(gristmill_command(scratch / "models", "aio"), SERVER_CORE) as aio,
            Memcpy(SERVER_CORE) as memcpy,
        ):
            servers = {"native": native, "aio": aio}
            return [result for elements in ELEMENTS for result in _run_size(servers, memcpy, elements, effort, scratch)]


def _run_size(
    servers: dict[str, PinnedServer], memcpy: Memcpy, elements: int, effort: Effort, scratch: Path
) -> list[TensorResult]:
    tensor = np.random.default_rng(0).normal(size=elements).astype(np.float32)
    request = infer_request(_MODEL, {"X": tensor})
    frame = scratch / f"{elements}.frame"
    frame.write_bytes(grpc_frame(request))
    loops = []
    for frontend, server in servers.items():
        _require_identity(server, request)
        loop = ClosedLoop(Target(GRISTMILL[frontend], server, frame, _MODEL), _CONNECTIONS, _STREAMS, [LOAD_CORE])
        loop.calibrate(effort.seconds, _FIRST_REQUESTS)
        loops.append(loop)
    copies_us = []
    for _ in range(effort.rounds):
        copies_us.append(memcpy.us_per_copy(tensor.nbytes, _MEMCPY_SECONDS))
        for loop in loops:
            loop.run()
    return [summarise(loop, loops[0], tensor.nbytes, copies_us) for loop in loops]


def _require_identity(server: PinnedServer, request: bytes) -> None:
    with BenchClient(server.port) as client:
        client.require_ready(_MODEL)
        if output_bytes(client.infer(request)) != input_bytes(request):
            raise WrongAnswerError("the identity model does not answer with its input")


def summarise(loop: ClosedLoop, native: ClosedLoop, tensor_bytes: int, copies_us: list[float]) -> TensorResult:
    """Of the runs of one server, those of the native one, and the microseconds of a copy in the same turns."""
    requests_per_s = median(loop.rates)
    return TensorResult(
        server=loop.target.name,
        tensor_bytes=tensor_bytes,
        requests_per_s=requests_per_s,
        gb_per_s=requests_per_s * tensor_bytes * 2 / 1e9,
        cpu_us_per_request=median(loop.cpu_us),
        core_used=loop.cores_used,
        client_core_used=loop.client_cores_used,
        memcpy_gb_per_s=tensor_bytes / median(copies_us) / 1e3,
        cpu_in_copies=median_ratio(loop.cpu_us, copies_us),
        native_rate_ratio=median_ratio(native.rates, loop.rates),
        runs_requests_per_s=list(loop.rates),
        runs_cpu_us_per_request=list(loop.cpu_us),
    )


def size_name(size_bytes: int) -> str:
    """In the largest unit of which there is at least one."""
    for unit, unit_bytes in (("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.3g} {unit}"
    return f"{size_bytes} B"


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {"core": SERVER_CORE, "io_threads": 1, "model.sim": _TEXT, "config.pbtxt": _CONFIG},
        "load": {"core": LOAD_CORE, "connections": _CONNECTIONS, "streams": _STREAMS},
        "elements": list(ELEMENTS),
        **asdict(effort),
    }
