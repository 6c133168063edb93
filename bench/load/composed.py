# SPDX-License-Identifier: Apache-2.0
"""What a model costs by what it is made of: a backend in C++, a Python class, other models, or answers that were kept.

All give their input back, so that what is measured is the way there. The server is on core 0, the load on core 1;
Python workers are on core 0 too.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.client import BenchClient, WrongAnswerError, input_bytes, output_bytes
from bench.closed_loop import ClosedLoop, Target, run_in_turns
from bench.effort import Effort
from bench.frames import grpc_frame, infer_request
from bench.models import publish_sim
from bench.server import PinnedServer, gristmill_command, pinned_server
from bench.statistics import median_ratio

SERVER_CORE, LOAD_CORE = 0, 1
#: Calls at a time, as connections and streams.
LOADS = ((1, 1), (4, 16))
#: By model: what it is, and with how many requests to `backend` its rate is compared.
MODELS = {
    "backend": ("a backend in C++", 1),
    "cached": ("the same, answered from the cache", 1),
    "ensemble": ("an ensemble of two such models, to two calls", 2),
    "python": ("a Python class", 1),
}
#: Whose batches are counted; of answers that were kept there are none.
_COUNTED = {"backend": "backend", "cached": None, "ensemble": "backend", "python": "python"}
_WIDTH = 16
_TEXT = f"input X FP32 -1 {_WIDTH}\noutput Y FP32 -1 {_WIDTH} = identity X\n"
_BATCHED = "max_batch_size: 64 dynamic_batching { }"
_CACHED = f"{_BATCHED} response_cache {{ enable: true }}"
_ENSEMBLE = """
max_batch_size: 64
input { name: "X" }
output { name: "Y" }
ensemble_scheduling {
  step { model_name: "backend" input_map { key: "X" value: "X" } output_map { key: "Y" value: "between" } }
  step { model_name: "backend" input_map { key: "X" value: "between" } output_map { key: "Y" value: "Y" } }
}
"""
_PYTHON_TENSORS = f"""
backend: "python"
input {{ name: "X" data_type: TYPE_FP32 dims: {_WIDTH} }}
output {{ name: "Y" data_type: TYPE_FP32 dims: {_WIDTH} }}
"""
_PYTHON = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", r.inputs()[0].as_numpy())]) for r in requests]
"""


@dataclass(frozen=True)
class ComposedResult:
    """One model under one load: medians over the rounds.

    `mean_batch` is 0 where nothing is run. `rate_ratio`: its rate to that of as many calls of the backend's model as
    MODELS says, in the same turns.
    """

    model: str
    calls: int
    requests_per_s: float
    cpu_us_per_request: float
    mean_batch: float
    rate_ratio: float


def run(effort: Effort) -> list[ComposedResult]:
    """Bench all. Raises BuildError, ServerError, H2loadError or WrongAnswerError."""
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as directory:
        scratch = Path(directory)
        _publish(scratch / "models")
        with pinned_server(gristmill_command(scratch / "models", "native"), SERVER_CORE) as server:
            frames = {model: _frame(server, model, scratch) for model in MODELS}
            results = []
            for connections, streams in LOADS:
                loops = {
                    model: ClosedLoop(Target(model, server, frame, _COUNTED[model]), connections, streams, [LOAD_CORE])
                    for model, frame in frames.items()
                }
                for loop in loops.values():
                    loop.calibrate(effort.seconds)
                run_in_turns(list(loops.values()), effort.rounds)
                results += [summarise(loop, loops["backend"]) for loop in loops.values()]
            return results


def _publish(repository: Path) -> None:
    publish_sim(repository, "backend", _TEXT, _BATCHED)
    publish_sim(repository, "cached", _TEXT, _CACHED)
    (repository / "ensemble" / "1").mkdir(parents=True)
    (repository / "ensemble" / "config.pbtxt").write_text(_ENSEMBLE)
    (repository / "python" / "1").mkdir(parents=True)
    (repository / "python" / "config.pbtxt").write_text(_PYTHON_TENSORS + _BATCHED)
    (repository / "python" / "1" / "model.py").write_text(_PYTHON)


def _frame(server: PinnedServer, model: str, scratch: Path) -> Path:
    """The request, once its answer is known to be right."""
    request = infer_request(model, {"X": np.arange(_WIDTH, dtype=np.float32)[np.newaxis]})
    with BenchClient(server.port) as client:
        client.require_ready(model)
        if output_bytes(client.infer(request)) != input_bytes(request):
            raise WrongAnswerError(f"model '{model}' does not answer with its input")
    frame = scratch / f"{model}.frame"
    frame.write_bytes(grpc_frame(request))
    return frame


def summarise(loop: ClosedLoop, backend: ClosedLoop) -> ComposedResult:
    """Of the runs of one model, and those of the backend's in the same turns."""
    return ComposedResult(
        model=loop.target.name,
        calls=loop.connections * loop.streams,
        requests_per_s=median(loop.rates),
        cpu_us_per_request=median(loop.cpu_us),
        mean_batch=median(loop.batches) if loop.batches else 0,
        rate_ratio=MODELS[loop.target.name][1] * median_ratio(loop.rates, backend.rates),
    )


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "server": {
            "core": SERVER_CORE,
            "io_threads": 1,
            "model.sim": _TEXT,
            "model.py": _PYTHON,
            "ensemble": _ENSEMBLE,
        },
        "load": {"core": LOAD_CORE, "connections and streams": list(LOADS)},
        **asdict(effort),
    }
