# SPDX-License-Identifier: Apache-2.0
"""Servers under load: processes pinned to cores that print the port they listen on."""

from __future__ import annotations

import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# As gristmill and the floors say it, and as Triton does.
_LISTENING = re.compile(r"(?:listening on|Started GRPCInferenceService at) \S+:(\d+)")
_LIMIT_S = 60.0


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True)
class PinnedServer:
    """A running server."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        """User and system time of all its threads since its start."""
        return time.clock_gettime(cpu_clock(self.pid))


def cpu_clock(pid: int) -> int:
    """The clock of the CPU time of another process, as clock_getcpuclockid(3) makes it: finer than /proc's ticks."""
    return ~pid << 3 | 2


def free_port() -> int:
    """A port for a server that cannot choose one: free now, and not given out again soon."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def gristmill_command(repository: Path, frontend: str, io_threads: int = 1) -> list[str]:
    """`gristmill serve` on a port of its own choice, with one thread per run of a model."""
    return [
        *(str(Path(sys.executable).parent / "gristmill"), "serve", "--model-repository", str(repository)),
        *("--host", "127.0.0.1", "--grpc-port", "0", "--intra-op-threads", "1"),
        *("--frontend", frontend, "--io-threads", str(io_threads)),
    ]


@contextmanager
def pinned_server(command: Sequence[str], *cores: int) -> Iterator[PinnedServer]:
    """Run `command` on `cores` while the block runs. Raises ServerError if it ends before it prints its port."""
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: list[str] = []
    ports: queue.Queue[int] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, output, ports), daemon=True)
    reader.start()
    try:
        try:
            port = ports.get(timeout=_LIMIT_S)
        except queue.Empty:
            port = 0
        if port == 0:
            raise ServerError(f"{' '.join(command)} did not report a port:\n{''.join(output)}")
        # taskset becomes the server, so that this is the server's process.
        yield PinnedServer(process.pid, port)
    finally:
        process.terminate()
        try:
            process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], output: list[str], ports: queue.Queue[int]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if match := _LISTENING.search(line):
            ports.put(int(match[1]))
    ports.put(0)
