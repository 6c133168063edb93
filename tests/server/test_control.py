# SPDX-License-Identifier: Apache-2.0
"""The control services behind a real server, over a real channel, on a fake engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gristmill_protos
import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from gristmill.control.inference_service import InferenceService, ServiceOptions
from gristmill.control.services import HealthReporter, add_services
from gristmill.frontend.aio import bind, create_server
from gristmill.options import ServerOptions
from gristmill.repository.loader import VersionLoader
from gristmill.repository.manager import ManagerOptions, ModelControlMode, ModelManager
from gristmill_protos import inference_pb2 as pb
from gristmill_protos.inference_pb2_grpc import GRPCInferenceServiceStub
from gristmill_protos.model_config_pb2 import DataType
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from .fakes import LIMIT_S, FakeEngine, add_config, add_version, make_options


@dataclass
class Running:
    manager: ModelManager
    reporter: HealthReporter
    channel: grpc.aio.Channel

    async def call(self, method: str, request: Any) -> Any:
        return await getattr(GRPCInferenceServiceStub(self.channel), method)(request, timeout=LIMIT_S)

    async def refused(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.call(method, request)
        return error.value.code(), error.value.details() or ""


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def strict() -> bool:
    return False


@pytest.fixture
async def running(tmp_path: Path, engine: FakeEngine, strict: bool) -> AsyncIterator[Running]:
    """A server in explicit mode whose start-up loading is left to the test."""
    reporter = HealthReporter()
    manager = ModelManager(
        ManagerOptions([tmp_path], ModelControlMode.EXPLICIT, ["*"]),
        engine,
        VersionLoader(engine, make_options, default_max_batch_size=64),
        reporter.set_model,
    )
    server = create_server(ServerOptions([]))
    add_services(server, InferenceService(manager, ServiceOptions("1.2.3", strict)), reporter)
    port = bind(server, "127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(manager, reporter, channel)
    await server.stop(None)


async def test_server_is_live_at_once_and_ready_after_start(running: Running) -> None:
    assert (await running.call("ServerLive", pb.ServerLiveRequest())).live
    assert not (await running.call("ServerReady", pb.ServerReadyRequest())).ready
    await running.manager.start()
    assert (await running.call("ServerReady", pb.ServerReadyRequest())).ready


@pytest.mark.parametrize("strict", [True, False])
async def test_strict_readiness_asks_for_every_model(running: Running, tmp_path: Path, strict: bool) -> None:
    add_version(tmp_path, "m", 1, "fail")
    await running.manager.start()
    assert (await running.call("ServerReady", pb.ServerReadyRequest())).ready is not strict
    await running.call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="m"))
    assert (await running.call("ServerReady", pb.ServerReadyRequest())).ready


async def test_model_ready(running: Running, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    await running.manager.start()
    for name, version, ready in [("m", "", True), ("m", "1", True), ("m", "2", False), ("nope", "", False)]:
        answer = await running.call("ModelReady", pb.ModelReadyRequest(name=name, version=version))
        assert answer.ready is ready, (name, version)
    code, message = await running.refused("ModelReady", pb.ModelReadyRequest(name="m", version="x"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a version number, got 'x'" in message


async def test_server_metadata(running: Running) -> None:
    answer = await running.call("ServerMetadata", pb.ServerMetadataRequest())
    assert (answer.name, answer.version) == ("gristmill", "1.2.3")
    assert set(answer.extensions) == {"model_repository", "model_configuration", "statistics"}


async def test_model_metadata_shows_the_batch_dimension(running: Running, tmp_path: Path) -> None:
    content = "in:x:FP32:-1,3 in:words:BYTES:-1,-1 out:y:INT64:-1"
    add_version(tmp_path, "m", 1, content)
    add_version(tmp_path, "m", 2, content)
    add_config(tmp_path, "m", "version_policy { all {} }")
    add_version(tmp_path, "fixed", 1, "in:x:FP32:2,3 out:y:INT64:2")
    await running.manager.start()
    answer = await running.call("ModelMetadata", pb.ModelMetadataRequest(name="m"))
    assert (answer.name, list(answer.versions), answer.platform) == ("m", ["1", "2"], "sim")
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.inputs] == [
        ("x", "FP32", [-1, 3]),
        ("words", "BYTES", [-1, -1]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.outputs] == [("y", "INT64", [-1])]
    fixed = await running.call("ModelMetadata", pb.ModelMetadataRequest(name="fixed", version="1"))
    assert list(fixed.inputs[0].shape) == [2, 3]


async def test_model_config_is_complete(running: Running, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    add_config(tmp_path, "m", "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 7 }")
    await running.manager.start()
    config = (await running.call("ModelConfig", pb.ModelConfigRequest(name="m"))).config
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (8, 7)
    assert config.input[0].data_type == DataType.TYPE_FP32
    assert list(config.input[0].dims) == [4]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
async def test_descriptions_of_what_is_not_served(running: Running, tmp_path: Path, method: str) -> None:
    add_version(tmp_path, "m", 1)
    add_version(tmp_path, "broken", 1, "fail")
    await running.manager.start()
    request = getattr(pb, f"{method}Request")
    code, message = await running.refused(method, request(name="nope"))
    assert (code, "'nope'" in message) == (grpc.StatusCode.NOT_FOUND, True)
    code, message = await running.refused(method, request(name="m", version="7"))
    assert (code, "it serves 1" in message) == (grpc.StatusCode.NOT_FOUND, True)
    code, message = await running.refused(method, request(name="broken"))
    assert (code, "told to fail" in message) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_statistics_of_all_of_one_and_of_one_version(running: Running, tmp_path: Path) -> None:
    for name, version in [("a", 1), ("a", 2), ("b", 1)]:
        add_version(tmp_path, name, version)
    add_config(tmp_path, "a", "version_policy { all {} }")
    await running.manager.start()

    async def ask(**fields: str) -> Sequence[pb.ModelStatistics]:
        return (await running.call("ModelStatistics", pb.ModelStatisticsRequest(**fields))).model_stats

    assert [(s.name, s.version) for s in await ask()] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert [(s.name, s.version) for s in await ask(name="a")] == [("a", "1"), ("a", "2")]
    (one,) = await ask(name="a", version="2")
    assert (one.last_inference, one.inference_count, one.execution_count) == (1234, 3, 1)
    assert (one.inference_stats.success.ns, one.inference_stats.compute_infer.ns) == (5, 7)
    assert (one.batch_stats[0].batch_size, one.batch_stats[0].compute_output.count) == (3, 1)


async def test_index_load_and_unload(running: Running, tmp_path: Path, engine: FakeEngine) -> None:
    await running.manager.start()
    add_version(tmp_path, "m", 1, "v1")

    async def index(ready: bool = False) -> list[tuple[str, str, str, str]]:
        answer = await running.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=ready))
        return [(m.name, m.version, m.state, m.reason) for m in answer.models]

    assert await index() == [("m", "1", "UNAVAILABLE", "not loaded")]
    await running.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
    assert await index(ready=True) == [("m", "1", "READY", "")]
    request = pb.RepositoryModelUnloadRequest(model_name="m")
    request.parameters["unload_dependents"].bool_param = False  # as every client of Triton sends
    await running.call("RepositoryModelUnload", request)
    assert await index(ready=True) == []
    assert await index() == [("m", "1", "UNAVAILABLE", "it was unloaded on request")]


async def test_load_with_a_configuration(running: Running, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    request = pb.RepositoryModelLoadRequest(model_name="m")
    request.parameters["config"].string_param = json.dumps({"max_batch_size": 5})
    await running.call("RepositoryModelLoad", request)
    assert running.manager.find("m").config.max_batch_size == 5


async def test_refused_loads_say_why(running: Running, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "fail")
    request = pb.RepositoryModelLoadRequest(model_name="m")
    code, message = await running.refused("RepositoryModelLoad", request)
    assert code is grpc.StatusCode.INTERNAL
    assert message == "failed to load model 'm': version 1: cannot open model.sim: told to fail"
    request.parameters["file:1/model.onnx"].bytes_param = b"x"
    assert (await running.refused("RepositoryModelLoad", request))[0] is grpc.StatusCode.UNIMPLEMENTED
    other = pb.RepositoryModelLoadRequest(model_name="m")
    other.parameters["speed"].int64_param = 3
    code, message = await running.refused("RepositoryModelLoad", other)
    assert (code, "unknown parameters: speed" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    wrong = pb.RepositoryModelLoadRequest(model_name="m")
    wrong.parameters["config"].int64_param = 3
    assert (await running.refused("RepositoryModelLoad", wrong))[0] is grpc.StatusCode.INVALID_ARGUMENT
    missing = pb.RepositoryModelLoadRequest(model_name="nope")
    assert (await running.refused("RepositoryModelLoad", missing))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"])
async def test_repository_names_are_refused(running: Running, method: str) -> None:
    code, message = await running.refused(method, getattr(pb, f"{method}Request")(repository_name="r"))
    assert (code, "repository_name" in message) == (grpc.StatusCode.UNIMPLEMENTED, True)


@pytest.mark.parametrize(
    "method",
    [f"{kind}SharedMemory{what}" for kind in ("System", "Cuda") for what in ("Status", "Register", "Unregister")]
    + ["TraceSetting", "LogSettings"],
)
async def test_what_is_not_served_says_so(running: Running, method: str) -> None:
    code, message = await running.refused(method, getattr(pb, f"{method}Request")())
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert message.startswith(f"{method} is not served by this server; ")


async def test_health_follows_the_server_and_its_models(running: Running, tmp_path: Path) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)

    async def status(service: str) -> str:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT_S)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    await running.reporter.set_server(False)
    assert await status("") == await status("inference.GRPCInferenceService") == "NOT_SERVING"
    add_version(tmp_path, "m", 1)
    await running.manager.start()
    await running.reporter.set_server(True)
    assert await status("") == await status("inference.GRPCInferenceService") == await status("m") == "SERVING"
    await running.manager.unload("m")
    assert await status("m") == "NOT_SERVING"
    await running.reporter.shut_down()
    await running.reporter.set_server(True)
    assert await status("") == "NOT_SERVING"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await status("nope")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_services_and_describes_them(running: Running) -> None:
    request = reflection_pb2.ServerReflectionRequest
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    questions = [
        request(list_services=""),
        request(file_containing_symbol="inference.GRPCInferenceService"),
        request(file_containing_symbol="inference.ModelConfig"),
        request(file_containing_symbol="grpc.health.v1.Health"),
        request(file_containing_symbol="grpc.reflection.v1alpha.ServerReflection"),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(questions), timeout=LIMIT_S)]
    services = ["inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
    assert [service.name for service in answers[0].list_services_response.service] == sorted(services)
    described = []
    for answer in answers[1:]:
        file = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        described.append([service.name for service in file.service])
    assert described == [["GRPCInferenceService"], [], ["Health"], ["ServerReflection"]]
    assert gristmill_protos.POOL.FindServiceByName("grpc.health.v1.Health").name == "Health"


@pytest.mark.parametrize(
    "path",
    [
        "/inference.GRPCInferenceService/ModelReady",
        "/inference.GRPCInferenceService/TraceSetting",
        "/grpc.health.v1.Health/Check",
    ],
)
async def test_damaged_message_is_the_callers_fault(running: Running, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=f"{path} does not decode") as error:
        await running.channel.unary_unary(path)(b"\x0a\x05ab", timeout=LIMIT_S)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
