# SPDX-License-Identifier: Apache-2.0
"""Priorities, timeouts and deadlines of requests that wait for a busy model."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .harness import LIMIT_S, RunningServer, inputs_of, serve, write_sim

#: Half a second an execution: long beside what it takes to make a few calls.
SLOW = """
input  X FP32 -1 1
output Y FP32 -1 1 = identity X
latency_us 1:500000
"""

CONFIGS = {
    "plain": "max_batch_size: 1 dynamic_batching {}",
    "urgent": "max_batch_size: 1 dynamic_batching { priority_levels: 2 default_priority_level: 2 }",
    "patient": """max_batch_size: 1 dynamic_batching { default_queue_policy {
        default_timeout_microseconds: 1000 timeout_action: DELAY } }""",
    "strict": """max_batch_size: 1 dynamic_batching { default_queue_policy {
        default_timeout_microseconds: 1000 } }""",
    "ordered": "max_batch_size: 1 dynamic_batching { preserve_ordering: true } instance_group { count: 3 }",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("queues")
    for model, config in CONFIGS.items():
        write_sim(repository, model, 1, SLOW, config)
    with serve(repository, frontend=frontend) as running:
        yield running


class Calls:
    """Calls of one model in a fixed order, all on one connection."""

    def __init__(self, server: RunningServer, model: str) -> None:
        self._client = server.client()
        self._model = model
        self._outcomes: queue.Queue[tuple[str, InferenceServerException | None]] = queue.Queue()
        self._count = 0

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def call(self, name: str, **options: Any) -> None:
        def note(result: triton.InferResult | None, error: InferenceServerException | None) -> None:
            self._outcomes.put((name, error))

        self._client.async_infer(self._model, inputs_of({"X": np.ones((1, 1), np.float32)}), note, **options)
        self._count += 1

    def outcomes(self) -> dict[str, InferenceServerException | None]:
        """Name of the call -> its error, in the order of the answers."""
        return dict(self._outcomes.get(timeout=LIMIT_S) for _ in range(self._count))


def test_the_urgent_overtake_those_who_came_before(server: RunningServer) -> None:
    with Calls(server, "urgent") as calls:
        for number in range(4):
            calls.call(f"default {number}")
        calls.call("urgent", priority=1)
        outcomes = calls.outcomes()
    assert set(outcomes.values()) == {None}
    assert list(outcomes)[-1] != "urgent"


@pytest.mark.parametrize(("model", "timeout_us"), [("plain", 1000), ("strict", 0), ("strict", 600_000_000)])
def test_what_does_not_begin_within_its_timeout_is_given_up(server: RunningServer, model: str, timeout_us: int) -> None:
    """By the request's own timeout, by the configuration's, and by the configuration's against the request's."""
    with Calls(server, model) as calls:
        for number in range(3):
            calls.call(str(number), timeout=timeout_us)
        late = [error for error in calls.outcomes().values() if error is not None]
    assert len(late) >= 2
    for error in late:
        assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert "the timeout passed while the request waited" in error.message()


def test_what_times_out_is_delayed_if_the_configuration_says_so(server: RunningServer) -> None:
    with Calls(server, "patient") as calls:
        for number in range(3):
            calls.call(str(number))
        assert calls.outcomes() == {"0": None, "1": None, "2": None}


def test_a_deadline_that_cannot_be_kept_is_refused_at_once(server: RunningServer) -> None:
    """The client would wait ten times as long as the model has been seen to take."""
    with server.client() as client, Calls(server, "plain") as calls:
        row = inputs_of({"X": np.ones((1, 1), np.float32)})
        client.infer("plain", row)  # so that the server knows how long the model takes
        for number in range(3):
            calls.call(str(number))
        calls.call("last")
        with pytest.raises(InferenceServerException) as refused:
            client.infer("plain", row, client_timeout=0.2)
        assert refused.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert "could answer in" in refused.value.message()
        assert set(calls.outcomes().values()) == {None}


def test_a_model_that_keeps_the_order_answers_everybody(server: RunningServer) -> None:
    with Calls(server, "ordered") as calls:
        for number in range(9):
            calls.call(str(number))
        assert set(calls.outcomes().values()) == {None}
