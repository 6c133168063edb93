# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime called in a loop, in a process of its own: what there is to reach without a server.

As a program: `python -m bench.load.direct_loop REPOSITORY MODEL` answers each line "BATCH SECONDS" on standard input
with a line of rows per second.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import onnxruntime as ort

from bench.models import SampleModel, find_sample


class DirectLoop:
    """A process pinned to one core with a model loaded; a context manager. It is idle between measurements."""

    def __init__(self, repository: Path, model: str, core: int) -> None:
        """`model` is a published sample model of `repository`."""
        program = [sys.executable, "-m", "bench.load.direct_loop", str(repository), model]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> DirectLoop:  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def rows_per_s(self, batch: int, seconds: float) -> float:
        """Run batches of `batch` rows for at least `seconds`. Raises RuntimeError if the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{batch} {seconds}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that calls ONNX Runtime has ended; its error is above")
        return float(line)


def measure(session: ort.InferenceSession, sample: SampleModel, batch: int, seconds: float) -> float:
    """Rows per second of `session` on batches of `batch`, after one that warms up."""
    feed = sample.rows(batch)
    session.run(None, feed)
    runs = 0
    begin = end = time.perf_counter()
    while end - begin < seconds:
        session.run(None, feed)
        runs += 1
        end = time.perf_counter()
    return runs * batch / (end - begin)


def main() -> None:
    """Load the model, then measure what standard input asks for until it ends."""
    sample = find_sample(Path(sys.argv[1]), sys.argv[2])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(sample.file), options, providers=["CPUExecutionProvider"])
    for line in sys.stdin:
        batch, seconds = line.split()
        print(measure(session, sample, int(batch), float(seconds)), flush=True)


if __name__ == "__main__":
    main()
