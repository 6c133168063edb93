# SPDX-License-Identifier: Apache-2.0
"""A real `gristmill serve` process, and repositories of simulated models for it."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

#: The command that the package installs, beside the interpreter that runs the tests.
GRISTMILL = Path(sys.executable).parent / "gristmill"

#: Generous: waits end when their condition holds, so the limit only decides how long a failure takes.
LIMIT_S = 60.0

_LISTENING = re.compile(r"listening on (\S+)")


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Poll until `holds()`; AssertionError naming `what` after LIMIT_S."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, f"waited {LIMIT_S:g} s in vain for {what}"
        time.sleep(0.01)


@dataclass
class RunningServer:
    """A server process that has reported its address."""

    process: subprocess.Popen[str]
    url: str
    output: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(self.url)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(LIMIT_S)

    def wait_for_output(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.output), f"{text!r} in the server's output")


@contextmanager
def serve(
    repository: Path, *arguments: str, frontend: str, is_ready: Callable[[str], bool] | None = None
) -> Iterator[RunningServer]:
    """Start a server on a port of its own choice and wait until it is ready.

    `is_ready` asks the address given, where tritonclient cannot without more ado. When the block ends, the server is
    ended if the test has not done so.
    """
    command = [GRISTMILL, "serve", "--model-repository", repository, "--frontend", frontend]
    command += ["--host", "127.0.0.1", "--grpc-port", "0"]
    process = subprocess.Popen(
        [str(word) for word in (*command, *arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output: list[str] = []
    url: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, output, url), daemon=True)
    reader.start()
    try:
        found = url.get(timeout=LIMIT_S)
        assert found, "the server ended before it listened:\n" + "".join(output)
        server = RunningServer(process, found, output)
        if is_ready is not None:
            wait_until(lambda: is_ready(found), "the server to be ready")
        else:
            with server.client() as client:
                wait_until(client.is_server_ready, "the server to be ready")
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        reader.join(LIMIT_S)


def _read(process: subprocess.Popen[str], output: list[str], url: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if match := _LISTENING.search(line):
            url.put(match[1])
    url.put("")


def run_gristmill(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the `gristmill` command to its end."""
    return subprocess.run(
        [str(GRISTMILL), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, **environment},
    )


def write_sim(repository: Path, name: str, version: int, text: str, config: str = "") -> None:
    """Publish a simulated model (csrc/backends/sim/sim_model_file.h): with a manifest, renamed into place."""
    model = repository / name
    staging = model / f".staging-{version}"
    staging.mkdir(parents=True)
    (staging / "model.sim").write_text(text)
    entry = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text.encode())}
    (staging / "manifest.json").write_text(json.dumps({"format": 1, "files": {"model.sim": entry}}))
    if config:
        (model / "config.pbtxt").write_text(config)
    staging.rename(model / str(version))


def copy_model(source: Path, repository: Path, name: str) -> Path:
    """Copy one model of a repository into another."""
    return Path(shutil.copytree(source / name, repository / name))


def inputs_of(arrays: Mapping[str, np.ndarray]) -> list[triton.InferInput]:
    """tritonclient's inputs for these arrays."""
    tensors = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(0)` … `work(count - 1)` at the same time and re-raise the first failure."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def body(number: int) -> None:
        try:
            start.wait(LIMIT_S)
            work(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a worker hangs"
    if failures:
        raise failures[0]


def state_of(client: triton.InferenceServerClient, model: str) -> dict[str, tuple[str, str]]:
    """Version -> (state, reason) by RepositoryIndex."""
    index: Iterable[object] = client.get_model_repository_index().models
    return {entry.version: (entry.state, entry.reason) for entry in index if entry.name == model}  # type: ignore[attr-defined]
