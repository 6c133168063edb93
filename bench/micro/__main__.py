# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.micro`: build the micro-benches into build/bench and run them on core 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.machine import ROOT, onnxruntime_library
from bench.models import build_mlp

_BUILD = ROOT / "build" / "bench"


def main() -> int:
    """Print each bench's lines; the exit status."""
    tools = Path(sys.executable).parent  # cmake and ninja come with the other packages
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGRISTMILL_BUILD_BENCH=ON", f"-DGRISTMILL_PYTHON={sys.executable}"]
    configure = ["cmake", "-S", str(ROOT), "-B", str(_BUILD), "-G", "Ninja", *options]
    build = ["cmake", "--build", str(_BUILD)]
    for command in (configure, build):
        step = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if step.returncode != 0:
            print(f"bench: {' '.join(command)} failed:\n{step.stdout}{step.stderr}", file=sys.stderr)
            return 1
    micro = _BUILD / "bench" / "micro"
    plugin = _BUILD / "csrc" / "backends" / "gristmill_backend_onnxruntime.so"
    with_model = [str(plugin), str(onnxruntime_library()), str(_BUILD / "mlp.onnx")]
    (_BUILD / "mlp.onnx").write_bytes(build_mlp())
    for bench in ([str(micro / "protocol_bench")], [str(micro / "ort_overhead_bench"), *with_model]):
        code = subprocess.run(["taskset", "-c", "0", *bench], check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
