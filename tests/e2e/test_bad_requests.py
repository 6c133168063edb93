# SPDX-License-Identifier: Apache-2.0
"""Wrong and damaged requests: the right code, a server that lives on, and neighbours who notice nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from .harness import LIMIT_S, RunningServer, inputs_of

if TYPE_CHECKING:
    #: Without serializers: bytes in, bytes out.
    RawCall = grpc.UnaryUnaryMultiCallable[bytes, bytes]

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
        call: RawCall = channel.unary_unary(METHOD)

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
    try:
        assert answered.acquire(timeout=LIMIT_S)
        yield
    finally:
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


#: What is wrong -> the message and the code of its refusal.
WRONG: dict[str, tuple[bytes, grpc.StatusCode]] = {
    "more bytes than the data": (change(_set("datatype", "FP16")), INVALID),
    "fewer bytes than the data": (change(_set("datatype", "FP64")), INVALID),
    "another datatype": (change(_set("datatype", "INT32")), INVALID),
    "no such datatype": (change(_set("datatype", "float")), INVALID),
    "no datatype": (change(_set("datatype", "")), INVALID),
    "no such input": (change(_set("name", "Z")), INVALID),
    "no input name": (change(_set("name", "")), INVALID),
    "one dimension more": (change(lambda r: r.inputs[0].shape.append(1)), INVALID),
    "no shape": (change(lambda r: r.inputs[0].ClearField("shape")), INVALID),
    "another dimension": (change(lambda r: r.inputs[0].shape.__setitem__(1, 3)), INVALID),
    "negative dimension": (change(lambda r: r.inputs[0].shape.__setitem__(0, -2)), INVALID),
    "no rows": (change(lambda r: r.inputs[0].shape.__setitem__(0, 0)), INVALID),
    "huge dimension": (change(lambda r: r.inputs[0].shape.__setitem__(0, 2**62)), INVALID),
    "the same input twice": (change(lambda r: r.inputs.add().CopyFrom(r.inputs[0])), INVALID),
    "no inputs": (change(lambda r: r.ClearField("inputs")), INVALID),
    "no contents": (change(lambda r: r.ClearField("raw_input_contents")), INVALID),
    "one content too many": (change(lambda r: r.raw_input_contents.append(b"")), INVALID),
    "odd bytes": (change(lambda r: r.raw_input_contents.__setitem__(0, b"1234567")), INVALID),
    "both kinds of contents": (change(lambda r: r.inputs[0].contents.fp32_contents.extend(range(8))), INVALID),
    "no such output": (change(lambda r: r.outputs.add(name="W")), INVALID),
    "too many rows": (valid(65).SerializeToString(), INVALID),
    "empty message": (b"", INVALID),
    "no message": (b"\xff" * 100, INVALID),
    "no model": (change(lambda r: setattr(r, "model_name", "")), INVALID),
    "unknown model": (change(lambda r: setattr(r, "model_name", "nobody")), grpc.StatusCode.NOT_FOUND),
    "unknown version": (change(lambda r: setattr(r, "model_version", "9")), grpc.StatusCode.NOT_FOUND),
    "unknown alias": (change(lambda r: setattr(r, "model_version", "champion")), grpc.StatusCode.NOT_FOUND),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_right_code(echo_server: RunningServer, wrong: str) -> None:
    message, code = WRONG[wrong]
    with raw_calls(echo_server) as send:
        assert send(message) is code
        assert send(valid().SerializeToString()) is grpc.StatusCode.OK


def typed(rows: int = 2) -> service_pb2.ModelInferRequest:
    request = valid(rows)
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.fp32_contents.extend(range(rows * 4))
    return request


@pytest.mark.parametrize("make", [valid, typed])
def test_truncations_and_mutations_harm_nobody(
    echo_server: RunningServer, make: Callable[[], service_pb2.ModelInferRequest]
) -> None:
    """Every truncation of a valid message and 100 random mutations of it, among right requests for the same model."""
    whole = bytes(make().SerializeToString())
    rng = random.Random(11)
    damaged = [whole[:length] for length in range(len(whole))] + [mutate(whole, rng) for _ in range(100)]
    with raw_calls(echo_server) as send, good_neighbours(echo_server):
        codes = [send(message) for message in damaged]
        assert send(whole) is grpc.StatusCode.OK
    for message, code in zip(damaged, codes, strict=True):
        # A cut between two fields, or another number, may leave a request that is right or asks for something else.
        decodes = {grpc.StatusCode.OK, INVALID, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
        assert code in (decodes if is_request(message) else {INVALID}), message
    assert codes.count(INVALID) > 100


def is_request(message: bytes) -> bool:
    """Whether the protobuf library can read it."""
    try:
        service_pb2.ModelInferRequest.FromString(message)
    except DecodeError:
        return False
    return True


def mutate(message: bytes, rng: random.Random) -> bytes:
    """The message with up to four of its bytes replaced, removed, or doubled."""
    mutated = bytearray(message)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutated))
        match rng.randrange(3):
            case 0:
                mutated[at] = rng.randrange(256)
            case 1:
                del mutated[at]
            case _:
                mutated.insert(at, mutated[at])
    return bytes(mutated)


def test_random_bytes_are_no_request(echo_server: RunningServer) -> None:
    rng = random.Random(12)
    with raw_calls(echo_server) as send:
        codes = {send(rng.randbytes(rng.randrange(1, 200))) for _ in range(200)}
        assert codes == {INVALID}
        assert send(valid().SerializeToString()) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (change(_set("datatype", "FP64")), ["input 'X' of model 'echo'", "FP64[2,4]", "64 bytes", "have 32"]),
        (change(_set("datatype", "INT32")), ["model 'echo'", "'X'", "expects FP32[-1,4]", "got INT32[2,4]"]),
        (change(_set("name", "Z")), ["model 'echo' has no input 'Z'", "its inputs are 'X'"]),
        (change(lambda r: r.inputs[0].shape.append(1)), ["expects FP32[-1,4]", "got FP32[2,4,1]"]),
        (change(lambda r: r.raw_input_contents.__setitem__(0, b"1234567")), ["takes 32 bytes", "have 7"]),
        (change(lambda r: r.ClearField("inputs")), ["model 'echo'", "0 inputs but 1 raw_input_contents"]),
        (change(lambda r: r.outputs.add(name="W")), ["model 'echo' has no output 'W'", "'Y', 'SUM', 'COMPANY'"]),
        (valid(65).SerializeToString(), ["model 'echo'", "1 to 64 rows", "got 65", "max_batch_size"]),
        (change(lambda r: setattr(r, "model_name", "nobody")), ["nobody"]),
        (change(lambda r: setattr(r, "model_version", "9")), ["echo", "9"]),
    ],
)
def test_refusals_say_what_was_expected_and_what_came(
    echo_server: RunningServer, message: bytes, words: list[str]
) -> None:
    with grpc.insecure_channel(echo_server.url) as channel:
        call: RawCall = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as refused:
            call(message, timeout=LIMIT_S)
        for word in words:
            assert word in (refused.value.details() or "")


METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods


@pytest.mark.parametrize(
    "rpc",
    [
        *(method.name for method in METHODS if method.name != "ModelStreamInfer"),  # which tells it within the stream
        "NoSuchMethod",
    ],
)
def test_no_rpc_fails_by_a_damaged_message(echo_server: RunningServer, rpc: str) -> None:
    with grpc.insecure_channel(echo_server.url) as channel:
        call: RawCall = channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}")
        for message in (b"\x0a\x05ab", b"\xff" * 9):
            with pytest.raises(grpc.RpcError) as refused:
                call(message, timeout=LIMIT_S)
            assert refused.value.code() in (INVALID, grpc.StatusCode.UNIMPLEMENTED)
            assert refused.value.details()
    with echo_server.client() as client:
        assert client.is_server_ready()


def test_content_that_the_model_rejects_fails_alone(echo_server: RunningServer) -> None:
    """`echo` fails a whole batch that has a 666 in it; only the request that brought it may suffer."""
    poison = valid()
    poison.raw_input_contents[0] = np.full((2, 4), 666, dtype=np.float32).tobytes()
    with raw_calls(echo_server) as send, good_neighbours(echo_server):
        codes = {send(poison.SerializeToString()) for _ in range(50)}
    assert codes == {INVALID}
