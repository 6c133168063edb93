# SPDX-License-Identifier: Apache-2.0
"""Independent gRPC clients cannot tell the front ends of `gristmill serve` apart: one table of calls, every client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from .grpc_clients.calls import Call, Case, GrpcClient, Outcome, outcomes_of
from .harness import LIMIT_S, inputs_of, serve, write_sim

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

MAX_MESSAGE_BYTES = 5 << 20

ECHO = """
input  X FP32 -1 4
output Y FP32 -1 4 = identity X
output SUM FP32 -1 = row_sum X
poison X 666
"""
# Answers more than it is asked.
TWICE = """
input  X FP32 -1 -1
output Y FP32 -1 -1 = identity X
output Z FP32 -1 -1 = identity X
"""
SLOW = """
input  X FP32 -1 4
output Y FP32 -1 4 = identity X
latency_us 1:2000000
"""

LARGE_ROWS = np.arange(1 << 20, dtype=np.float32).reshape(1, -1)  # 4 MiB


def infer(
    model: str = "echo",
    rows: Any = ((1, 2, 3, 4),),
    datatype: str = "FP32",
    version: str = "",
    outputs: tuple[str, ...] = (),
) -> bytes:
    array = np.asarray(rows, np.float32)
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version, id="an id")
    request.inputs.add(name="X", datatype=datatype, shape=array.shape)
    for name in outputs:
        request.outputs.add(name=name)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def answer(model: str, **outputs: Any) -> service_pb2.ModelInferResponse:
    response = service_pb2.ModelInferResponse(model_name=model, model_version="1", id="an id")
    for name, values in outputs.items():
        array = np.asarray(values, np.float32)
        response.outputs.add(name=name, datatype="FP32", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


def method(name: str, request: Message | None = None) -> Call:
    return Call(f"/{SERVICE}/{name}", messages=[request.SerializeToString() if request else b""])


def infer_case(name: str, expected: Outcome, request: bytes, text_is_ours: bool = True, **options: Any) -> Case:
    return Case(name, Call(f"/{SERVICE}/ModelInfer", messages=[request], **options), expected, text_is_ours)


def ok(*responses: Message) -> Outcome:
    return Outcome(StatusCode.OK, responses=[response.SerializeToString() for response in responses])


def refused(code: StatusCode, details: str = "") -> Outcome:
    return Outcome(code, details)


INVALID = StatusCode.INVALID_ARGUMENT
NOT_PROTOBUF = "the request is not a ModelInferRequest: its envelope does not decode as protobuf"
NOT_METADATA = (
    f"the request to /{SERVICE}/ModelMetadata does not decode: "
    "Error parsing message with type 'inference.ModelMetadataRequest'"
)
SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
WATCH = health_pb2.HealthCheckRequest().SerializeToString()
UNKNOWN_SERVICE = health_pb2.HealthCheckRequest(service="nobody").SerializeToString()
LIST = reflection_pb2.ServerReflectionRequest(list_services="")
LISTED = reflection_pb2.ServerReflectionResponse(original_request=LIST)
for name in (HEALTH, "grpc.reflection.v1alpha.ServerReflection", SERVICE):
    LISTED.list_services_response.service.add(name=name)
METADATA = service_pb2.ModelMetadataResponse(name="twice", versions=["1"], platform="sim")
METADATA.inputs.add(name="X", datatype="FP32", shape=[-1, -1])
for name in ("Y", "Z"):
    METADATA.outputs.add(name=name, datatype="FP32", shape=[-1, -1])

SUM = answer("echo", Y=[[1, 2, 3, 4]], SUM=[10])

CASES = [
    infer_case("infer", ok(SUM), infer()),
    infer_case("infer by version", ok(SUM), infer(version="1")),
    infer_case("some outputs", ok(answer("echo", SUM=[10])), infer(outputs=("SUM",))),
    infer_case(
        "no rows to speak of", ok(answer("echo", Y=np.zeros((3, 4)), SUM=[0, 0, 0])), infer(rows=np.zeros((3, 4)))
    ),
    infer_case("4 MiB", ok(answer("twice", Y=LARGE_ROWS)), infer("twice", LARGE_ROWS, outputs=("Y",))),
    infer_case(
        "4 MiB in gzip",
        ok(answer("twice", Y=LARGE_ROWS)),
        infer("twice", LARGE_ROWS, outputs=("Y",)),
        compression="gzip",
    ),
    infer_case("deflate", ok(SUM), infer(), compression="deflate"),
    infer_case("metadata", ok(SUM), infer(), metadata=(("x-a", "b"), ("x-a-bin", b"\xff"), ("x-a-bin", b""))),
    infer_case(
        "an unknown model",
        refused(StatusCode.NOT_FOUND, "there is no model 'größe'; RepositoryIndex lists the models"),
        infer("größe"),
    ),
    infer_case(
        "an unknown version",
        refused(StatusCode.NOT_FOUND, "model 'echo' has no version '2'; served are 1"),
        infer(version="2"),
    ),
    infer_case(
        "a version that is no number",
        refused(StatusCode.NOT_FOUND, "model 'echo' has no version 'new'; served are 1"),
        infer(version="new"),
    ),
    infer_case(
        "a wrong type",
        refused(INVALID, "model 'echo' expects FP32[-1,4] for input 'X' but got INT32[1,4]"),
        infer(datatype="INT32"),
    ),
    infer_case(
        "an unknown type",
        refused(
            INVALID, "input 'X' of model 'echo': unknown datatype 'größe'; expected FP32, INT64, BYTES or the like"
        ),
        infer(datatype="größe"),
    ),
    infer_case(
        "a wrong shape",
        refused(INVALID, "model 'echo' expects FP32[-1,4] for input 'X' but got FP32[1,3]"),
        infer(rows=((1, 2, 3),)),
    ),
    infer_case(
        "an unknown output",
        refused(INVALID, "model 'echo' has no output 'Q'; its outputs are 'Y', 'SUM'"),
        infer(outputs=("Q",)),
    ),
    infer_case(
        "a poisoned batch",
        refused(INVALID, "input 'X' holds the element that poisons this simulated model"),
        infer(rows=((666, 2, 3, 4),)),
    ),
    infer_case("garbage", refused(INVALID, NOT_PROTOBUF), b"\xff\x00garbage"),
    infer_case("half a request", refused(INVALID, NOT_PROTOBUF), infer()[:-3]),
    infer_case("an empty request", refused(INVALID, "the request has no model_name"), b""),
    # --- gRPC core writes these texts on its own side, and ours on ours
    infer_case("too large a request", refused(StatusCode.RESOURCE_EXHAUSTED), bytes(MAX_MESSAGE_BYTES + 1), False),
    infer_case(
        "too large a request once it is decompressed",
        refused(StatusCode.RESOURCE_EXHAUSTED),
        bytes(MAX_MESSAGE_BYTES + 1),
        False,
        compression="gzip",
    ),
    infer_case("too large an answer", refused(StatusCode.RESOURCE_EXHAUSTED), infer("twice", LARGE_ROWS), False),
    Case(
        "too large a request to a servicer",
        Call(f"/{HEALTH}/Check", messages=[bytes(MAX_MESSAGE_BYTES + 1)]),
        refused(StatusCode.RESOURCE_EXHAUSTED),
        text_is_ours=False,
    ),
    # --- ended by the client, whose own text then tells
    infer_case("a deadline", refused(StatusCode.DEADLINE_EXCEEDED), infer("slow"), False, timeout_s=0.2),
    infer_case("cancellation", refused(StatusCode.CANCELLED), infer("slow"), False, cancel_after_s=0.2),
    # --- every other service
    Case("live", method("ServerLive"), ok(service_pb2.ServerLiveResponse(live=True))),
    Case("ready", method("ServerReady"), ok(service_pb2.ServerReadyResponse(ready=True))),
    Case(
        "model ready",
        method("ModelReady", service_pb2.ModelReadyRequest(name="echo")),
        ok(service_pb2.ModelReadyResponse(ready=True)),
    ),
    Case("model metadata", method("ModelMetadata", service_pb2.ModelMetadataRequest(name="twice")), ok(METADATA)),
    Case(
        "metadata of an unknown model",
        method("ModelMetadata", service_pb2.ModelMetadataRequest(name="nobody")),
        refused(StatusCode.NOT_FOUND, "unknown model 'nobody'; RepositoryIndex lists the models"),
    ),
    Case(
        "what is not served",
        method("LogSettings"),
        refused(
            StatusCode.UNIMPLEMENTED,
            "LogSettings is not served by this server; restart the server with --log-level instead",
        ),
    ),
    Case("an unknown method", method("Nothing"), refused(StatusCode.UNIMPLEMENTED, "Method not found!")),
    Case("an unknown service", Call("/nobody/Nothing"), refused(StatusCode.UNIMPLEMENTED, "Method not found!")),
    Case(
        "garbage for a servicer", Call(f"/{SERVICE}/ModelMetadata", messages=[b"\xff"]), refused(INVALID, NOT_METADATA)
    ),
    Case("health", Call(f"/{HEALTH}/Check"), ok(SERVING)),
    Case(
        "health of an unknown service",
        Call(f"/{HEALTH}/Check", messages=[UNKNOWN_SERVICE]),
        refused(StatusCode.NOT_FOUND, ""),
    ),
    Case(
        "a watch",
        Call(f"/{HEALTH}/Watch", "server_stream", [WATCH], cancel_on="response"),
        Outcome(StatusCode.CANCELLED, responses=[SERVING.SerializeToString()]),
        text_is_ours=False,
    ),
    Case(
        "reflection",
        Call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "bidi", [LIST.SerializeToString()] * 2),
        ok(LISTED, LISTED),
    ),
]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Front end -> address of a server."""
    repository = tmp_path_factory.mktemp("models")
    write_sim(repository, "echo", 1, ECHO)
    write_sim(repository, "twice", 1, TWICE)
    write_sim(repository, "slow", 1, SLOW)
    options = ("--max-message-bytes", str(MAX_MESSAGE_BYTES), "--exit-timeout-secs", "0")
    with ExitStack() as stack:
        yield {
            frontend: stack.enter_context(serve(repository, *options, frontend=frontend)).url
            for frontend in ("aio", "native")
        }


@pytest.fixture(scope="module")
def outcomes(grpc_client: GrpcClient, targets: dict[str, str]) -> dict[str, dict[str, Outcome]]:
    return outcomes_of(grpc_client, targets, CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call(case: Case, outcomes: dict[str, dict[str, Outcome]]) -> None:
    case.check(**outcomes[case.name])


def test_inference_at_once_gets_its_own_answers(grpc_client: GrpcClient, targets: dict[str, str]) -> None:
    numbers = range(200)
    rows = [np.full((1 + number % 7, 4), number, np.float32) for number in numbers]
    calls = [Call(f"/{SERVICE}/ModelInfer", messages=[infer(rows=row)]) for row in rows]
    for url in targets.values():
        for row, outcome in zip(rows, grpc_client.make(url, calls, at_once=True), strict=True):
            assert outcome == ok(answer("echo", Y=row, SUM=row.sum(axis=1)))


def triton_outcomes(url: str) -> dict[str, object]:
    """What tritonclient gives back or raises."""
    row = np.ones((1, 4), np.float32)
    with triton.InferenceServerClient(url) as client:

        def cancelled() -> object:
            done = threading.Event()
            failures: list[Exception | None] = []

            def note(result: object, error: Exception | None) -> None:
                failures.append(error)
                done.set()

            client.async_infer("slow", inputs_of({"X": row}), note).cancel()
            assert done.wait(LIMIT_S)
            return isinstance(failures[0], InferenceServerException) and failures[0].status()

        def infer_rows(rows: object, model: str = "echo", **options: Any) -> Callable[[], object]:
            inputs = inputs_of({"X": np.asarray(rows)})
            return lambda: client.infer(model, inputs, request_id="an id", **options).get_response()

        calls: dict[str, Callable[[], object]] = {
            "infer": infer_rows(row),
            "gzip": infer_rows(row, compression_algorithm="gzip"),
            "headers": infer_rows(row, headers={"x-a": "b"}),
            "large": infer_rows(LARGE_ROWS, "twice", outputs=[triton.InferRequestedOutput("Y")]),
            "too large": infer_rows(LARGE_ROWS, "twice"),
            "unknown": infer_rows(row, "nobody"),
            "type": infer_rows(np.ones((1, 4), np.int64)),
            "shape": infer_rows(np.ones((1, 5), np.float32)),
            "deadline": infer_rows(row, "slow", client_timeout=0.2),
            "cancelled": cancelled,
            "live": client.is_server_live,
            "ready": client.is_server_ready,
            "model ready": lambda: client.is_model_ready("nobody"),
            "server": client.get_server_metadata,
            "metadata": lambda: client.get_model_metadata("echo"),
            "config": lambda: client.get_model_config("echo"),
            "index": client.get_model_repository_index,
            "load": lambda: client.load_model("echo"),
            "not served": client.get_log_settings,
        }
        outcomes: dict[str, object] = {}
        for name, call in calls.items():
            try:
                outcomes[name] = call()
            except InferenceServerException as error:
                outcomes[name] = (error.status(), error.message())
    return outcomes


def test_tritonclient(targets: dict[str, str]) -> None:
    aio, native = (triton_outcomes(url) for url in targets.values())
    for name in ("too large", "deadline"):  # texts of gRPC core's
        aio[name], native[name] = aio[name][0], native[name][0]  # type: ignore[index]
    assert native == aio
    assert native["infer"] == native["gzip"] == native["headers"] == answer("echo", Y=np.ones((1, 4)), SUM=[4])
    assert native["large"] == answer("twice", Y=LARGE_ROWS)
    assert native["too large"] == "StatusCode.RESOURCE_EXHAUSTED"
    assert native["deadline"] == "StatusCode.DEADLINE_EXCEEDED"
    assert native["cancelled"] == "StatusCode.CANCELLED"
    assert {name: found[0] for name, found in native.items() if isinstance(found, tuple)} == {
        "unknown": "StatusCode.NOT_FOUND",
        "type": "StatusCode.INVALID_ARGUMENT",
        "shape": "StatusCode.INVALID_ARGUMENT",
        "load": "StatusCode.UNAVAILABLE",  # no explicit mode
        "not served": "StatusCode.UNIMPLEMENTED",
    }
