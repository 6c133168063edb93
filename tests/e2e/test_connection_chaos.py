# SPDX-License-Identifier: Apache-2.0
"""Connections opened and killed at random while others work: nobody else notices, and nothing is left behind."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from .conftest import ECHO
from .harness import RunningServer, inputs_of, serve, wait_until, write_sim

CONNECTIONS = 500
CLIENTS = 3
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: What grpcio sent once, without the preface; the first byte is the fuzzer's.
RECORDED = [
    path.read_bytes()[1:] for path in sorted((Path(__file__).parents[1] / "cpp/fuzz/transport_corpus").iterdir())
]


@pytest.fixture(scope="module")
def chaos_server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    """`echo`, slowly, so that connections die while their calls run."""
    repository = tmp_path_factory.mktemp("chaos")
    write_sim(repository, "echo", 1, ECHO + "latency_us 1:2000\n")
    with serve(repository, frontend=frontend) as running:
        yield running


def descriptors(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def resident_mib(server: RunningServer) -> float:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def infer_until(
    server: RunningServer, number: int, ended: threading.Event, failures: list[str], calls: list[int]
) -> None:
    """Each answer must be the caller's own."""
    values = random.Random(number)
    with server.client() as client:
        while not ended.is_set():
            mine = np.full((1, 4), number * 1_000_000 + values.randrange(500_000), dtype=np.float32)
            try:
                answer = client.infer("echo", inputs_of({"X": mine})).as_numpy("Y")
            except Exception as error:
                failures.append(repr(error))
                return
            if not np.array_equal(answer, mine):
                failures.append(f"sent {mine.tolist()}, got {answer.tolist()}")
            calls[number] += 1


def kill_connections(server: RunningServer, seed: int) -> None:
    """Open connections, a few at a time; send a part of a conversation, or of none; go, politely or not."""
    choose = random.Random(seed)
    open_now: list[socket.socket] = []
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", server.port))
        said = PREFACE + choose.choice(RECORDED)
        if choose.random() < 0.2:
            said = choose.randbytes(200)
        connection.sendall(said[: choose.randrange(len(said) + 1)])
        if choose.random() < 0.5:  # RST instead of FIN
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        open_now.append(connection)
        if len(open_now) > 20:
            open_now.pop(choose.randrange(len(open_now))).close()
    for connection in open_now:
        connection.close()


def test_dying_connections_harm_nobody_and_leave_nothing(chaos_server: RunningServer) -> None:
    kill_connections(chaos_server, seed=0)  # so that what is allocated once has been
    before, resident = descriptors(chaos_server), resident_mib(chaos_server)
    ended = threading.Event()
    failures: list[str] = []
    calls = [0] * CLIENTS
    clients = [
        threading.Thread(target=infer_until, args=(chaos_server, number, ended, failures, calls))
        for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for seed in (1, 2, 3):
        kill_connections(chaos_server, seed)
    ended.set()
    for client in clients:
        client.join()
    assert not failures
    assert min(calls) > 0
    wait_until(lambda: descriptors(chaos_server) <= before, "the connections' descriptors to be closed")
    assert resident_mib(chaos_server) < resident + 50
