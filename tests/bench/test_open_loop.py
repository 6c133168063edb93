# SPDX-License-Identifier: Apache-2.0
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from bench.frames import grpc_frame
from bench.load.open_loop import OpenLoopError, arrivals_ns, read_latencies, run_open_loop

MESSAGE = bytes(range(256)) * 300  # more than a frame of HTTP/2 holds
SERVICE_S = 0.05


@contextmanager
def one_at_a_time(answer: grpc.StatusCode = grpc.StatusCode.OK) -> Iterator[int]:
    """The port of a server that takes SERVICE_S for a call, and calls one after another."""

    def infer(request: bytes, context: grpc.ServicerContext) -> bytes:
        assert request == MESSAGE
        time.sleep(SERVICE_S)
        if answer is not grpc.StatusCode.OK:
            context.abort(answer, "as the test wants it")
        return b"answer"

    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_arrivals_are_a_poisson_process_that_a_seed_repeats() -> None:
    due_ns = arrivals_ns(10_000, 2, seed=7)
    assert (due_ns == arrivals_ns(10_000, 2, seed=7)).all()
    assert (due_ns != arrivals_ns(10_000, 2, seed=8)).any()
    assert due_ns.dtype == np.int64
    gaps_ns = np.diff(due_ns, prepend=0)
    assert gaps_ns.size == 20_000
    assert (gaps_ns >= 0).all()
    # Exponential: the deviation is the mean, and a share of 1 / e of the gaps is above it.
    assert gaps_ns.mean() == pytest.approx(100_000, rel=0.03)
    assert gaps_ns.std() == pytest.approx(100_000, rel=0.03)
    assert (gaps_ns > 100_000).mean() == pytest.approx(np.exp(-1), rel=0.03)


def test_a_schedule_without_a_call_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one call"):
        arrivals_ns(10, 0.05, seed=0)


def test_latencies_are_read_in_pairs(tmp_path: Path) -> None:
    np.array([0, 5_000, 2_000, 9_500], dtype=np.int64).tofile(tmp_path / "latencies")
    latencies = read_latencies(tmp_path / "latencies", 2)
    assert latencies.sent_late_us.tolist() == [0, 2]
    assert latencies.latency_us.tolist() == [5, 9.5]


@pytest.mark.parametrize(
    ("figures", "problem"), [([0, 5], "each of 2 calls"), ([0, 5, 7, 6], "before"), ([0, 5, -1, 6], "before")]
)
def test_latencies_that_cannot_be_are_refused(tmp_path: Path, figures: list[int], problem: str) -> None:
    np.array(figures, dtype=np.int64).tofile(tmp_path / "latencies")
    with pytest.raises(OpenLoopError, match=problem):
        read_latencies(tmp_path / "latencies", 2)


def run(port: int, due_ns: np.ndarray, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    frame = scratch / "frame"
    frame.write_bytes(grpc_frame(MESSAGE))
    latencies = run_open_loop(port, frame, due_ns, [min(os.sched_getaffinity(0))], scratch)
    return latencies.sent_late_us, latencies.latency_us


def test_a_server_that_is_busy_is_charged_for_the_calls_that_wait(tmp_path: Path) -> None:
    due_ns = np.arange(6) * 1_000_000
    with one_at_a_time() as port:
        _, latency_us = run(port, due_ns, tmp_path)
    # Whatever the order in which the server takes them, the nth answer comes no sooner than n services after the start.
    answered_us = np.sort(latency_us + due_ns / 1000)
    assert (answered_us >= np.arange(1, 7) * SERVICE_S * 1e6).all()


def test_a_call_that_is_due_later_is_not_sent_before(tmp_path: Path) -> None:
    with one_at_a_time() as port:
        begin = time.monotonic()
        sent_late_us, _ = run(port, np.array([0, 300_000_000]), tmp_path)
        assert time.monotonic() - begin >= 0.3
    assert (sent_late_us >= 0).all()


def test_a_call_that_fails_in_grpc_is_an_error(tmp_path: Path) -> None:
    with one_at_a_time(grpc.StatusCode.INTERNAL) as port, pytest.raises(OpenLoopError, match="grpc-status 0"):
        run(port, np.array([0]), tmp_path)


def test_no_server_is_an_error(tmp_path: Path) -> None:
    with one_at_a_time() as port:
        pass
    with pytest.raises(OpenLoopError, match="cannot connect"):
        run(port, np.array([0]), tmp_path)
