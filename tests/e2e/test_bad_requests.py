# SPDX-License-Identifier: Apache-2.0
"""Wrong and damaged requests: the right code, a server that lives on, and neighbours who notice nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from .harness import LIMIT_S, RunningServer, inputs_of

METHOD = "/inference.GRPCInferenceService/ModelInfer"

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def valid(rows: int = 2) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="echo", id="a")
    request.inputs.add(name="X", datatype="FP32", shape=[rows, 4])
    request.outputs.add(name="Y")
    request.raw_input_contents.append(np.arange(rows * 4, dtype=np.float32).tobytes())
    return request


@contextmanager
def raw_calls(server: RunningServer) -> Iterator[Callable[[bytes], grpc.StatusCode]]:
    """A function that sends bytes as a ModelInferRequest and gives the status code; also keeps the last message."""
    with grpc.insecure_channel(server.url) as channel:
        call = channel.unary_unary(METHOD)  # no serializers: bytes in, bytes out

        def send(message: bytes) -> grpc.StatusCode:
            try:
                call(message, timeout=LIMIT_S)
                return grpc.StatusCode.OK
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
            assert details, f"{code} without a message"
            return code

        yield send


@contextmanager
def good_neighbours(server: RunningServer) -> Iterator[None]:
    """Callers with right requests for the same model, all the while; any wrong answer fails the test."""
    stop = threading.Event()
    failures: list[BaseException] = []
    answered = threading.Semaphore(0)

    def body(number: int) -> None:
        rows = np.full((1 + number % 3, 4), number, dtype=np.float32)
        try:
            with server.client() as client:
                while not stop.is_set():
                    answer = client.infer("echo", inputs_of({"X": rows}))
                    assert answer.as_numpy("Y").tobytes() == rows.tobytes()
                    answered.release()
        except BaseException as failure:
            failures.append(failure)
            answered.release()

    threads = [threading.Thread(target=body, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    assert answered.acquire(timeout=LIMIT_S)
    yield
    stop.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert not failures, failures


def change(edit: Callable[[service_pb2.ModelInferRequest], object]) -> bytes:
    request = valid()
    edit(request)
    return bytes(request.SerializeToString())


def _set(field: str, value: object) -> Callable[[service_pb2.ModelInferRequest], object]:
    return lambda request: setattr(request.inputs[0], field, value)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (change(_set("datatype", "FP64")), INVALID),
        (change(_set("datatype", "INT32")), INVALID),
        (change(_set("datatype", "float")), INVALID),
        (change(_set("name", "Z")), INVALID),
        (change(lambda r: r.inputs[0].shape.append(1)), INVALID),
        (change(lambda r: r.inputs[0].shape.__setitem__(1, 3)), INVALID),
        (change(lambda r: r.inputs[0].shape.__setitem__(0, -2)), INVALID),
        (change(lambda r: r.inputs[0].shape.__setitem__(0, 2**62)), INVALID),
        (change(lambda r: r.inputs.add(name="X", datatype="FP32", shape=[1])), INVALID),
        (change(lambda r: r.ClearField("inputs")), INVALID),
        (change(lambda r: r.ClearField("raw_input_contents")), INVALID),
        (change(lambda r: r.raw_input_contents.append(b"")), INVALID),
        (change(lambda r: r.raw_input_contents.__setitem__(0, b"1234567")), INVALID),
        (change(lambda r: r.outputs.add(name="W")), INVALID),
        (valid(65).SerializeToString(), INVALID),
        (b"", INVALID),
        (b"\xff" * 100, INVALID),
        (change(lambda r: setattr(r, "model_name", "")), INVALID),
        (change(lambda r: setattr(r, "model_name", "nobody")), grpc.StatusCode.NOT_FOUND),
        (change(lambda r: setattr(r, "model_version", "9")), grpc.StatusCode.NOT_FOUND),
        (change(lambda r: setattr(r, "model_version", "champion")), grpc.StatusCode.NOT_FOUND),
    ],
)
def test_the_right_code(echo_server: RunningServer, message: bytes, code: grpc.StatusCode) -> None:
    with raw_calls(echo_server) as send:
        assert send(message) is code
        assert send(valid().SerializeToString()) is grpc.StatusCode.OK


def test_truncations_and_mutations_harm_nobody(echo_server: RunningServer) -> None:
    """Every truncation of a valid message and 100 random mutations of it, among right requests for the same model."""
    whole = bytes(valid().SerializeToString())
    rng = random.Random(11)
    damaged = [whole[:length] for length in range(len(whole))]
    for _ in range(100):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        damaged.append(bytes(mutated))
    allowed = {grpc.StatusCode.OK, INVALID, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
    with raw_calls(echo_server) as send, good_neighbours(echo_server):
        codes = [send(message) for message in damaged]
    assert set(codes) <= allowed
    assert codes.count(INVALID) > 100
    with echo_server.client() as client:
        assert client.is_server_ready()


def test_content_that_the_model_rejects_fails_alone(echo_server: RunningServer) -> None:
    """`echo` fails a whole batch that has a 666 in it; only the request that brought it may suffer."""
    poison = valid()
    poison.raw_input_contents[0] = np.full((2, 4), 666, dtype=np.float32).tobytes()
    with raw_calls(echo_server) as send, good_neighbours(echo_server):
        codes = {send(poison.SerializeToString()) for _ in range(50)}
    assert codes == {INVALID}
