# SPDX-License-Identifier: Apache-2.0
"""How a server starts and ends, as whoever runs it sees it."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from .harness import RunningServer, inputs_of, run_gristmill, serve, wait_until

ROW = np.ones((1, 1), dtype=np.float32)


def test_start_up_shows_what_is_served(server: RunningServer) -> None:
    table = "".join(server.output)
    for word in ("Model", "Version", "Status", "Backend", "Reason", "echo", "slow", "READY", "sim"):
        assert word in table
    assert f"listening on 127.0.0.1:{server.port}" in table


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(server: RunningServer, number: signal.Signals) -> None:
    answers: list[Exception | None] = []
    with server.client() as client, server.client() as late:
        assert late.is_server_live()
        for _ in range(3):
            client.async_infer("slow", inputs_of({"X": ROW}), lambda result, error: answers.append(error))
        wait_until(lambda: len(answers) >= 1, "the first answer")
        server.signal(number)
        wait_until(lambda: len(answers) == 3, "the answers to what was in flight")
        assert answers == [None, None, None]
        assert server.wait() == 0
        with pytest.raises(InferenceServerException) as refused:
            late.infer("slow", inputs_of({"X": ROW}))
        assert refused.value.status() == "StatusCode.UNAVAILABLE"


def test_new_calls_are_refused_while_the_server_drains(server: RunningServer, frontend: str) -> None:
    answers: list[Exception | None] = []
    outcomes: list[str] = []
    with server.client() as client, server.client() as late:
        assert late.is_server_ready()
        for _ in range(8):
            client.async_infer("slow", inputs_of({"X": ROW}), lambda result, error: answers.append(error))
        wait_until(lambda: len(answers) >= 1, "the first answer")
        server.signal()

        def refused() -> bool:
            """Between the signal and the end of new calls, a call is answered as ever."""
            try:
                late.infer("echo", inputs_of({"X": np.ones((1, 4), dtype=np.float32)}))
            except InferenceServerException as error:
                outcomes.append(str(error.status()))
            return bool(outcomes)

        wait_until(refused, "a refusal")
        wait_until(lambda: len(answers) == 8, "the answers to what was in flight")
        assert server.wait() == 0
    # gRPC core cancels a call that had reached it and no handler as yet.
    assert (
        outcomes[0]
        in {"native": {"StatusCode.UNAVAILABLE"}, "aio": {"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"}}[frontend]
    )
    assert answers == [None] * 8


def test_a_second_signal_ends_at_once(server: RunningServer) -> None:
    answers: list[Exception | None] = []
    with server.client() as client:
        for _ in range(50):
            client.async_infer("slow", inputs_of({"X": ROW}), lambda result, error: answers.append(error))
        wait_until(lambda: len(answers) >= 1, "the first answer")
        server.signal()
        server.wait_for_output("ending on SIGTERM")
        server.signal()
        assert server.wait() == 128 + signal.SIGTERM
        wait_until(lambda: len(answers) == 50, "every call to end")
    assert any(answers), "some calls must have been given up"


def test_the_grace_period_bounds_the_drain(repository: Path, frontend: str) -> None:
    answers: list[Exception | None] = []
    with serve(repository, "--exit-timeout-secs", "0", frontend=frontend) as server, server.client() as client:
        for _ in range(50):
            client.async_infer("slow", inputs_of({"X": ROW}), lambda result, error: answers.append(error))
        wait_until(lambda: len(answers) >= 1, "the first answer")
        server.signal()
        assert server.wait() == 0
        wait_until(lambda: len(answers) == 50, "every call to end")
    assert any(answers), "some calls must have been given up"


def test_what_prevents_a_start_is_one_clear_line(repository: Path, tmp_path: Path) -> None:
    missing = run_gristmill("serve", "--model-repository", str(tmp_path / "nowhere"))
    assert missing.returncode == 2
    assert "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run_gristmill(
            "serve", "--model-repository", str(repository), "--host", "127.0.0.1", "--grpc-port", port
        )
    assert result.returncode == 1
    assert port in result.stderr
    assert "Traceback" not in result.stderr
