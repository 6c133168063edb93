# SPDX-License-Identifier: Apache-2.0
"""A server in the test's process that echoes what it gets and fails as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from gristmill_protos import inference_pb2 as pb
from gristmill_protos import inference_pb2_grpc as stubs


class FakeServer(stubs.GRPCInferenceServiceServicer):
    """Model `echo` answers its inputs; model `pair` has two inputs; any other is unknown.

    `failures` holds the statuses that the next calls of ModelInfer fail with. `block` keeps calls waiting.
    """

    def __init__(self) -> None:
        self.failures: list[grpc.StatusCode] = []
        self.requests: list[pb.ModelInferRequest] = []
        self.metadata_calls = 0
        self.headers: dict[str, str | bytes] = {}
        self.loaded: list[str] = []
        self.block = threading.Event()
        self.block.set()
        self.datatype = "FP32"

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        self.requests.append(request)
        self.headers = dict(context.invocation_metadata())
        self.block.wait(30)
        if self.failures:
            code = self.failures.pop(0)
            context.abort(code, f"scripted {code.name}")
        if request.model_name not in ("echo", "pair"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_name!r}")
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="3", id=request.id)
        for tensor in request.inputs:
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.extend(request.raw_input_contents)
        return response

    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        self.metadata_calls += 1
        if request.name not in ("echo", "pair"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name!r}")
        response = pb.ModelMetadataResponse(name=request.name, versions=["3"], platform="fake")
        for name in ("x", "y")[: 2 if request.name == "pair" else 1]:
            response.inputs.add(name=name, datatype=self.datatype, shape=[-1, 2])
            response.outputs.add(name=name, datatype=self.datatype, shape=[-1, 2])
        return response

    def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: grpc.ServicerContext
    ) -> pb.ModelStatisticsResponse:
        calls = len(self.requests)
        response = pb.ModelStatisticsResponse()
        entry = response.model_stats.add(name="echo", version="3", inference_count=2 * calls, execution_count=calls)
        entry.inference_stats.success.count = calls
        entry.inference_stats.queue.ns = 5000 * calls
        return response

    def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        response = pb.RepositoryIndexResponse()
        response.models.add(name="echo", version="3", state="READY")
        if not request.ready:
            response.models.add(name="broken", version="1", state="UNAVAILABLE", reason="[damaged]")
        return response

    def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        if request.model_name == "broken":
            context.abort(grpc.StatusCode.INTERNAL, "the file is damaged")
        self.loaded.append(request.model_name)
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        self.loaded.remove(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def ServerLive(self, request: pb.ServerLiveRequest, context: grpc.ServicerContext) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: pb.ServerReadyRequest, context: grpc.ServicerContext) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=False)

    def ModelReady(self, request: pb.ModelReadyRequest, context: grpc.ServicerContext) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=request.name == "echo")

    def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="fake", version="1.2", extensions=["statistics"])

    def ModelConfig(self, request: pb.ModelConfigRequest, context: grpc.ServicerContext) -> pb.ModelConfigResponse:
        response = pb.ModelConfigResponse()
        response.config.name = request.name
        response.config.max_batch_size = 8
        return response


@contextmanager
def running(servicer: FakeServer) -> Iterator[str]:
    """Serve it on a port of the system's choice; gives host:port."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    stubs.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        servicer.block.set()
        server.stop(0).wait(30)
