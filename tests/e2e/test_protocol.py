# SPDX-License-Identifier: Apache-2.0
"""Every served rpc, called by clients that nobody here wrote: tritonclient, grpc's health and reflection clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from .harness import LIMIT_S, RunningServer, inputs_of, serve, write_sim

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


def test_health_and_metadata(server: RunningServer) -> None:
    with server.client() as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo")
        assert client.is_model_ready("echo", "1")
        assert not client.is_model_ready("echo", "2")
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata().name == "gristmill"
        metadata = client.get_model_metadata("echo")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("X", "FP32", [-1, 4])
    ]
    assert [tensor.name for tensor in metadata.outputs] == ["Y", "SUM", "COMPANY"]


def test_config_and_statistics(server: RunningServer) -> None:
    with server.client() as client:
        config = client.get_model_config("echo").config
        assert config.max_batch_size == 64
        assert config.HasField("dynamic_batching")
        client.infer("echo", inputs_of({"X": np.repeat(ROW, 5, axis=0)}))
        client.infer("echo", inputs_of({"X": ROW}))
        with pytest.raises(InferenceServerException):
            client.infer("echo", inputs_of({"X": ROW[:, :2]}))
        statistics = client.get_inference_statistics("echo").model_stats[0]
    assert (statistics.name, statistics.version) == ("echo", "1")
    assert statistics.inference_count == 6
    assert statistics.execution_count == 2
    assert statistics.last_inference > 1_700_000_000_000
    assert statistics.inference_stats.success.count == 2
    assert statistics.inference_stats.fail.count == 1
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(statistics.inference_stats, part).count == 2
        assert getattr(statistics.inference_stats, part).ns <= statistics.inference_stats.success.ns
    assert {batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats} == {5: 1, 1: 1}


def test_outputs_can_be_chosen(server: RunningServer) -> None:
    with server.client() as client:
        wanted = [triton.InferRequestedOutput("SUM"), triton.InferRequestedOutput("Y")]
        answer = client.infer("echo", inputs_of({"X": ROW}), outputs=wanted, request_id="r-7")
        assert [output.name for output in answer.get_response().outputs] == ["SUM", "Y"]
        assert answer.get_response().id == "r-7"
        assert answer.as_numpy("SUM").tolist() == [6]
        assert answer.as_numpy("COMPANY") is None


def test_repository_calls(server: RunningServer) -> None:
    with server.client() as client:
        index = {(entry.name, entry.version): entry.state for entry in client.get_model_repository_index().models}
        assert index == {("echo", "1"): "READY", ("slow", "1"): "READY"}
        client.unload_model("echo")
        assert not client.is_model_ready("echo")
        with pytest.raises(InferenceServerException, match="echo") as refused:
            client.infer("echo", inputs_of({"X": ROW}))
        assert refused.value.status() == "StatusCode.UNAVAILABLE"
        client.load_model("echo")
        assert client.infer("echo", inputs_of({"X": ROW})).as_numpy("SUM").tolist() == [6]
        with pytest.raises(InferenceServerException, match="nobody"):
            client.load_model("nobody")


def test_what_is_not_served_says_so(server: RunningServer) -> None:
    with server.client() as client:
        for call in (
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
            lambda: client.register_system_shared_memory("region", "/key", 64),
        ):
            with pytest.raises(InferenceServerException) as refused:
                call()
            assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
            assert refused.value.message()


def test_grpc_health_service(server: RunningServer) -> None:
    with grpc.insecure_channel(server.url) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_the_services(server: RunningServer) -> None:
    with grpc.insecure_channel(server.url) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
        described = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
    ours = {method.name for method in described.methods}
    theirs = {method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    assert ours == theirs


def test_an_expired_deadline_is_reported_and_not_executed(server: RunningServer) -> None:
    with server.client() as client:
        with pytest.raises(InferenceServerException) as expired:
            client.infer("slow", inputs_of({"X": ROW[:, :1]}), client_timeout=0.05)
        assert expired.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        # The parameter of the request, in microseconds, bounds its time in the queue.
        blocker = client.async_infer("slow", inputs_of({"X": ROW[:, :1]}), lambda result, error: None)
        with pytest.raises(InferenceServerException, match="timeout passed") as late:
            client.infer("slow", inputs_of({"X": ROW[:, :1]}), timeout=1000)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        blocker.cancel()


@pytest.fixture(scope="module")
def large_server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    """A server of `blob` and `text`, which give back rows of any width."""
    repository = tmp_path_factory.mktemp("large")
    write_sim(repository, "blob", 1, "input X UINT8 -1 -1\noutput Y UINT8 -1 -1 = identity X\n")
    write_sim(repository, "text", 1, "input X BYTES -1 -1\noutput Y BYTES -1 -1 = identity X\n")
    with serve(repository, frontend=frontend) as server:
        yield server


def test_requests_and_answers_of_64_mib_pass(large_server: RunningServer) -> None:
    rows = np.random.default_rng(3).integers(0, 256, (64, 1 << 20), dtype=np.uint8)
    with large_server.client() as client:
        answer = client.infer("blob", inputs_of({"X": rows}))
        assert np.array_equal(answer.as_numpy("Y"), rows)
        text = np.array([[rows[:32].tobytes(), b"", rows[32:].tobytes()]], dtype=object)
        answer = client.infer("text", inputs_of({"X": text}))
        assert answer.as_numpy("Y").tolist() == text.tolist()


def test_the_largest_message_can_be_limited(repository: Path, frontend: str) -> None:
    with serve(repository, "--max-message-bytes", "4096", frontend=frontend) as server, server.client() as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("echo", inputs_of({"X": np.zeros((512, 4), dtype=np.float32)}))
        assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert client.infer("echo", inputs_of({"X": ROW})).as_numpy("SUM").tolist() == [6]


def test_grpc_health_follows_models_and_the_server(server: RunningServer) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    with grpc.insecure_channel(server.url) as channel, server.client() as client:
        health: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=LIMIT_S)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        models = health.Watch(health_pb2.HealthCheckRequest(service="echo"), timeout=LIMIT_S)
        whole = health.Watch(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
        assert (next(models).status, next(whole).status) == (serving, serving)
        client.unload_model("echo")
        assert next(models).status == not_serving
        client.load_model("echo")
        assert next(models).status == serving
        server.signal()
        assert next(whole).status == not_serving
    assert server.wait() == 0
