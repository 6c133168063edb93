# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.micro`: build the micro-benches into build/bench and run them on core 0."""

from __future__ import annotations

import subprocess
import sys

from bench.build import BuildError, build_with_cmake
from bench.machine import onnxruntime_library
from bench.models import build_mlp


def main() -> int:
    """Print each bench's lines; the exit status."""
    try:
        folder = build_with_cmake("bench", "-DGRISTMILL_BUILD_BENCH=ON")
    except BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    micro = folder / "bench" / "micro"
    plugin = folder / "csrc" / "backends" / "gristmill_backend_onnxruntime.so"
    with_model = [str(plugin), str(onnxruntime_library()), str(folder / "mlp.onnx")]
    (folder / "mlp.onnx").write_bytes(build_mlp())
    for bench in (
        [str(micro / "protocol_bench")],
        [str(micro / "policy_bench")],
        [str(micro / "ort_overhead_bench"), *with_model],
    ):
        code = subprocess.run(["taskset", "-c", "0", *bench], check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
