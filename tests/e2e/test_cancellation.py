# SPDX-License-Identifier: Apache-2.0
"""Callers who give up make room for others at once, however long the model is busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .conftest import ECHO
from .harness import RunningServer, inputs_of, serve, wait_until, write_sim

#: Ten minutes an execution, by far longer than any limit of these tests.
BUSY = """
input  X FP32 -1 1
output Y FP32 -1 1 = identity X
latency_us 1:600000000
"""
ROOM = 5
#: Long beside what it takes to call a few times.
EXPIRES_S = 5.0
CONFIG = f"max_batch_size: 1\ndynamic_batching {{ default_queue_policy {{ max_queue_size: {ROOM} }} }}\n"


class Callers:
    """Calls of `busy`, all on one connection."""

    def __init__(self, server: RunningServer) -> None:
        self._client = server.client()
        self._calls: list[Any] = []

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def call(self, timeout_s: float | None = None) -> None:
        row = inputs_of({"X": np.ones((1, 1), dtype=np.float32)})
        self._calls.append(self._client.async_infer("busy", row, lambda result, error: None, client_timeout=timeout_s))

    def cancel(self) -> None:
        for call in self._calls:
            call.cancel()

    def accepted(self) -> int:
        """How many calls are executed or wait."""
        self._client.infer("echo", inputs_of({"X": np.ones((1, 4), dtype=np.float32)}))  # so all before it have come
        (statistics,) = self._client.get_inference_statistics("busy").model_stats
        assert statistics.inference_stats.success.count == 0
        return len(self._calls) - int(statistics.inference_stats.fail.count)

    def fill(self) -> None:
        """Call until one is executed and the queue is full; calls that come before the execution begins are refused."""

        def is_full() -> bool:
            self.call()
            return self.accepted() == 1 + ROOM

        wait_until(is_full, "a full queue")


def test_calls_that_are_given_up_make_room_while_the_model_is_busy(tmp_path: Path, frontend: str) -> None:
    write_sim(tmp_path, "busy", 1, BUSY, CONFIG)
    write_sim(tmp_path, "echo", 1, ECHO)
    with serve(tmp_path, "--exit-timeout-secs", "0", frontend=frontend) as server, Callers(server) as callers:
        callers.call()
        callers.fill()
        callers.cancel()
        wait_until(lambda: callers.accepted() == 1, "the cancelled calls to leave the queue")
        for _ in range(ROOM):
            callers.call(EXPIRES_S)
        assert callers.accepted() == 1 + ROOM
        wait_until(lambda: callers.accepted() == 1, "the expired calls to leave the queue")
        for _ in range(ROOM + 1):
            callers.call()
        assert callers.accepted() == 1 + ROOM
