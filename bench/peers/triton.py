# SPDX-License-Identifier: Apache-2.0
"""NVIDIA Triton, from the package nvidia-pytriton, which carries its server but no backend that runs ONNX.

So the MLP runs in a backend of ours that does only what is necessary (triton_mlp_backend.cc): what is measured is
Triton's front end, scheduler and batcher.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from bench.build import TRITON_MLP_BACKEND, build
from bench.machine import onnxruntime_library
from bench.models import MLP_WIDTHS
from bench.server import free_port

# Two instances are Triton's own choice for ONNX models on the CPU, and here the fastest.
_CONFIG = f"""
backend: "mlp"
max_batch_size: 256
input [{{ name: "INPUT0" data_type: TYPE_FP32 dims: [{MLP_WIDTHS[0]}] }}]
output [{{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [{MLP_WIDTHS[-1]}] }}]
instance_group [{{ kind: KIND_CPU count: 2 }}]
dynamic_batching {{ }}
"""


def find_triton() -> Path | None:
    """The server's program, or None where the package is not installed."""
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "tritonserver" / "bin" / "tritonserver"
    return program if program.exists() else None


def triton_command(program: Path, model: Path, scratch: Path) -> list[str]:
    """`program` with the MLP in the file `model`, its repository written into `scratch`. Raises BuildError."""
    program.chmod(program.stat().st_mode | 0o111)  # pip does not always keep the bit
    repository, backends = scratch / "triton" / "models", scratch / "triton" / "backends"
    version = repository / "mlp" / "1"
    version.mkdir(parents=True)
    shutil.copy(model, version / "model.onnx")
    (version.parent / "libonnxruntime.so").symlink_to(onnxruntime_library())
    (version.parent / "config.pbtxt").write_text(_CONFIG)
    (backends / "mlp").mkdir(parents=True)
    shutil.copy(build(TRITON_MLP_BACKEND), backends / "mlp" / "libtriton_mlp.so")
    return [
        *(str(program), "--model-repository", str(repository), "--backend-directory", str(backends)),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(free_port())),
        *("--allow-http=false", "--allow-metrics=false"),
    ]
