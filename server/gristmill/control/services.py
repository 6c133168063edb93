# SPDX-License-Identifier: Apache-2.0
"""Put the control services on a server: inference (without ModelInfer), health and reflection."""

from __future__ import annotations

from typing import Any

import gristmill_protos
import grpc.aio
from gristmill_protos import inference_pb2, inference_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gristmill.control.decoding import DecodingServer
from gristmill.control.inference_service import InferenceService

SERVICE = "inference.GRPCInferenceService"
_Status = health_pb2.HealthCheckResponse


class HealthReporter:
    """grpc.health.v1: "" and the inference service for the server, and each model under its own name."""

    def __init__(self) -> None:
        """Nothing is reported before the first call of a setter, which should come before the server starts."""
        self.servicer = health.aio.HealthServicer()

    async def set_server(self, ready: bool) -> None:
        """Report the server as a whole."""
        for name in ("", SERVICE):
            await self.set_model(name, ready)

    async def set_model(self, name: str, ready: bool) -> None:
        """Report one model. Fits ModelManager's `on_change`."""
        await self.servicer.set(name, _Status.SERVING if ready else _Status.NOT_SERVING)

    async def shut_down(self) -> None:
        """Report everything as NOT_SERVING, for good."""
        await self.servicer.enter_graceful_shutdown()


def add_services(server: grpc.aio.Server, service: InferenceService, reporter: HealthReporter) -> None:
    """Add the handlers. What the server was given before takes precedence."""
    checked: Any = DecodingServer(server)
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, checked)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(reporter.servicer, checked)
    # Reflection answers from one pool, and the protocol's messages have their own.
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR):
        gristmill_protos.POOL.AddSerializedFile(file.serialized_pb)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=gristmill_protos.POOL)
