# SPDX-License-Identifier: Apache-2.0
"""ModelStreamInfer: many requests in one call, answered in their order."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from gristmill_protos import inference_pb2 as pb
from gristmill_protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from .harness import LIMIT_S, RunningServer, inputs_of, serve, write_sim

ECHO = "input X FP32 -1 1\noutput Y FP32 -1 1 = identity X\npoison X 666\n"
SLOW = "input X FP32 -1 1\noutput Y FP32 -1 1 = identity X\nlatency_us 1:300000\n"
BLOB = "input X UINT8 -1 -1\noutput Y UINT8 -1 -1 = identity X\n"
SEVERAL = "max_batch_size: 16 dynamic_batching {} instance_group { count: 3 }"
ONE = "max_batch_size: 1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("streams")
    write_sim(repository, "echo", 1, ECHO, SEVERAL)
    write_sim(repository, "slow", 1, SLOW, ONE)
    write_sim(repository, "blob", 1, BLOB, ONE)
    with serve(repository, frontend=frontend) as running:
        yield running


def row(x: float) -> list[triton.InferInput]:
    return inputs_of({"X": np.array([[x]], np.float32)})


class Stream:
    """A stream of an unmodified tritonclient, and what it was answered in order."""

    def __init__(self, client: triton.InferenceServerClient, **options: Any) -> None:
        self._client = client
        self.answers: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.Queue()
        client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def send(self, model: str, inputs: list[triton.InferInput], **options: Any) -> None:
        self._client.async_stream_infer(model, inputs, **options)

    def next(self) -> triton.InferResult:
        result, error = self.answers.get(timeout=LIMIT_S)
        assert error is None, error
        assert result is not None
        return result

    def next_error(self) -> InferenceServerException:
        result, error = self.answers.get(timeout=LIMIT_S)
        assert error is not None
        assert result is None
        return error


def test_many_requests_of_one_stream_are_answered_in_their_order(client: triton.InferenceServerClient) -> None:
    stream = Stream(client)
    for number in range(500):
        stream.send("echo", row(number), request_id=f"r{number}")
    for number in range(500):
        answer = stream.next()
        assert answer.get_response().id == f"r{number}"
        assert answer.as_numpy("Y").item() == number
    client.stop_stream()


def test_an_answer_waits_for_those_before_it(client: triton.InferenceServerClient) -> None:
    stream = Stream(client)
    stream.send("slow", row(1), request_id="slow")
    stream.send("echo", row(2), request_id="quick")
    assert [stream.next().get_response().id for _ in range(2)] == ["slow", "quick"]


def test_an_error_is_told_in_its_place_and_the_stream_goes_on(client: triton.InferenceServerClient) -> None:
    stream = Stream(client)
    stream.send("echo", row(1))
    stream.send("echo", row(666))
    stream.send("nowhere", row(1))
    stream.send("echo", inputs_of({"Z": np.ones((1, 1), np.float32)}))
    stream.send("echo", row(2))
    assert stream.next().as_numpy("Y").item() == 1
    assert "poisons" in stream.next_error().message()
    assert "no model 'nowhere'" in stream.next_error().message()
    assert "no input 'Z'" in stream.next_error().message()
    assert stream.next().as_numpy("Y").item() == 2


def test_what_was_sent_before_the_end_of_the_stream_is_answered(client: triton.InferenceServerClient) -> None:
    stream = Stream(client)
    for number in range(20):
        stream.send("echo", row(number))
    stream.send("slow", row(1))
    client.stop_stream()  # half-closes, and waits until the server has ended the call
    assert stream.answers.qsize() == 21


def test_a_client_may_ask_for_errors_that_end_the_stream(client: triton.InferenceServerClient) -> None:
    stream = Stream(client, headers={"triton_grpc_error": "true"})
    stream.send("echo", row(1))
    stream.send("echo", row(666))
    stream.send("echo", row(2))
    assert stream.next().as_numpy("Y").item() == 1
    assert stream.next_error().status() == "StatusCode.INVALID_ARGUMENT"


def test_requests_of_large_tensors_are_answered(client: triton.InferenceServerClient) -> None:
    stream = Stream(client)
    sent = [np.random.default_rng(n).integers(0, 256, (1, 16 << 20), dtype=np.uint8) for n in range(3)]
    for array in sent:
        stream.send("blob", inputs_of({"X": array}))
    for array in sent:
        np.testing.assert_array_equal(stream.next().as_numpy("Y"), array)


async def test_asyncio_clients_stream_too(server: RunningServer) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(100):
            tensor = triton_aio.InferInput("X", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.array([[number]], np.float32))
            yield {"model_name": "echo", "inputs": [tensor], "request_id": str(number)}

    async with triton_aio.InferenceServerClient(server.url) as client:
        answers = [answer async for answer in client.stream_infer(requests())]
    assert [error for _, error in answers if error is not None] == []
    assert [result.as_numpy("Y").item() for result, _ in answers] == list(range(100))


def message(model: str, x: npt.NDArray[Any], request_id: str = "") -> pb.ModelInferRequest:
    datatype = "UINT8" if x.dtype == np.uint8 else "FP32"
    request = pb.ModelInferRequest(model_name=model, id=request_id, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="X", datatype=datatype, shape=x.shape)
    return request


@pytest.fixture
def stub(server: RunningServer) -> Iterator[GRPCInferenceServiceStub]:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.url, options=limits) as channel:
        yield GRPCInferenceServiceStub(channel)


ONE_ROW = np.ones((1, 1), np.float32)


def test_an_error_names_its_request(stub: GRPCInferenceServiceStub) -> None:
    answers = list(stub.ModelStreamInfer(iter([message("nowhere", ONE_ROW, "lost")]), timeout=LIMIT_S))
    assert len(answers) == 1
    assert answers[0].error_message.startswith("there is no model 'nowhere'")
    assert answers[0].infer_response == pb.ModelInferResponse(id="lost")


@pytest.mark.parametrize("damaged", [b"\x0a\x05ab", b"\xff" * 9])
def test_a_damaged_message_is_answered_with_an_error(server: RunningServer, damaged: bytes) -> None:
    with grpc.insecure_channel(server.url) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        whole = message("echo", ONE_ROW).SerializeToString()
        answers = [
            pb.ModelStreamInferResponse.FromString(raw) for raw in stream(iter([damaged, whole]), timeout=LIMIT_S)
        ]
    assert [bool(answer.error_message) for answer in answers] == [True, False]


def test_a_stream_without_a_request_ends_well(stub: GRPCInferenceServiceStub) -> None:
    assert list(stub.ModelStreamInfer(iter([]), timeout=LIMIT_S)) == []


def count_of(stub: GRPCInferenceServiceStub, model: str, kind: str) -> int:
    statistics = stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=LIMIT_S).model_stats[0]
    return int(getattr(statistics.inference_stats, kind).count)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_requests_of_a_stream_that_is_given_up_leave_the_queue(stub: GRPCInferenceServiceStub, how: str) -> None:
    answered, failed = count_of(stub, "slow", "success"), count_of(stub, "slow", "fail")
    never_ends = threading.Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        for _ in range(20):
            yield message("slow", ONE_ROW)
        never_ends.wait(LIMIT_S)

    call = stub.ModelStreamInfer(requests(), timeout=LIMIT_S if how == "cancel" else 0.8)
    next(call)
    if how == "cancel":
        call.cancel()
    with pytest.raises(grpc.RpcError):
        list(call)
    assert call.code() is (grpc.StatusCode.CANCELLED if how == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED)
    never_ends.set()
    # The next request is run as soon as the one that was being run is done, and finds no other before it.
    list(stub.ModelStreamInfer(iter([message("slow", ONE_ROW)]), timeout=LIMIT_S))
    assert count_of(stub, "slow", "success") - answered < 8
    assert count_of(stub, "slow", "fail") - failed > 12


def test_a_client_that_does_not_read_is_not_read_from(stub: GRPCInferenceServiceStub) -> None:
    """Far more is offered than the server holds for one connection; nothing is lost once the client reads."""
    array = np.zeros((1, 1 << 20), np.uint8)
    offered = 0

    def requests() -> Iterator[pb.ModelInferRequest]:
        nonlocal offered
        for number in range(200):
            offered = number + 1
            yield message("blob", array, str(number))

    call = stub.ModelStreamInfer(requests(), timeout=LIMIT_S)
    first = next(call)
    assert first.infer_response.id == "0"
    ids = [answer.infer_response.id for answer in call]
    assert ids == [str(number) for number in range(1, 200)]
    assert offered == 200


def test_many_streams_at_the_same_time(server: RunningServer) -> None:
    failures: list[str] = []

    def run(number: int, check: Callable[[bool], None]) -> None:
        with server.client() as client:
            stream = Stream(client)
            for turn in range(100):
                stream.send("echo", row(number * 1000 + turn))
            check(all(stream.next().as_numpy("Y").item() == number * 1000 + turn for turn in range(100)))

    def note(is_right: bool) -> None:
        if not is_right:
            failures.append("an answer of another stream")

    threads = [threading.Thread(target=run, args=(number, note)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
