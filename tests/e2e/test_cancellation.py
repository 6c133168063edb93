# SPDX-License-Identifier: Apache-2.0
"""Callers who give up make room for others at once, however long the model is busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import ECHO
from .harness import RunningServer, inputs_of, serve, wait_until, write_sim

#: Ten minutes an execution, by far longer than any limit of these tests.
BUSY = """
input  X FP32 -1 1
output Y FP32 -1 1 = identity X
latency_us 1:600000000
"""
ROOM = 5
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

    def fill(self, timeout_s: float | None = None) -> None:
        """Call until one is executed and the queue is full; calls that come before the execution begins are refused."""

        def is_full() -> bool:
            self.call(timeout_s)
            return self.accepted() == 1 + ROOM

        wait_until(is_full, "a full queue")


@pytest.mark.parametrize("timeout_s", [None, 2.0], ids=["cancelled", "expired"])
def test_calls_that_are_given_up_make_room_while_the_model_is_busy(
    tmp_path: Path, frontend: str, timeout_s: float | None
) -> None:
    write_sim(tmp_path, "busy", 1, BUSY, CONFIG)
    write_sim(tmp_path, "echo", 1, ECHO)
    with serve(tmp_path, "--exit-timeout-secs", "0", frontend=frontend) as server, Callers(server) as callers:
        callers.call()
        callers.fill(timeout_s)
        if timeout_s is None:
            callers.cancel()
        wait_until(lambda: callers.accepted() == 1, "the calls in the queue to be answered")
        for _ in range(ROOM + 1):
            callers.call()
        assert callers.accepted() == 1 + ROOM
