# SPDX-License-Identifier: Apache-2.0
"""Servers under load: processes pinned to cores that print the port they listen on."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LISTENING = re.compile(r"listening on \S+:(\d+)")
_LIMIT_S = 60.0


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True)
class PinnedServer:
    """A running server."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        """User and system time of all its threads since its start, in steps of a clock tick (10 ms)."""
        return parse_cpu_ticks(Path(f"/proc/{self.pid}/stat").read_text()) / os.sysconf("SC_CLK_TCK")


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime of a line of /proc/<pid>/stat."""
    # The second field, the command in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def gristmill_command(repository: Path, frontend: str = "native") -> list[str]:
    """`gristmill serve` on a port of its own choice, with one thread per run of a model and one event loop."""
    return [
        *(str(Path(sys.executable).parent / "gristmill"), "serve", "--model-repository", str(repository)),
        *("--host", "127.0.0.1", "--grpc-port", "0", "--intra-op-threads", "1"),
        *("--frontend", frontend, "--io-threads", "1"),
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
