# SPDX-License-Identifier: Apache-2.0
"""GRPCInferenceService without inference itself: health, descriptions, statistics and the model repository.

Belongs to the event loop of the server and of its ModelManager.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from gristmill_protos import inference_pb2 as pb
from gristmill_protos import inference_pb2_grpc

from gristmill.repository.errors import RepositoryError
from gristmill.repository.loader import LoadedVersion
from gristmill.repository.manager import ModelManager
from gristmill.repository.signature import protocol_datatype

if TYPE_CHECKING:
    from gristmill._core import Duration, Statistics

    Context = grpc.aio.ServicerContext[Any, Any]

SERVER_NAME = "gristmill"
EXTENSIONS = ("model_repository", "model_configuration", "statistics")

_NOT_SERVED = {
    "SystemSharedMemoryStatus": "send tensors in the message instead",
    "SystemSharedMemoryRegister": "send tensors in the message instead",
    "SystemSharedMemoryUnregister": "send tensors in the message instead",
    "CudaSharedMemoryStatus": "send tensors in the message instead",
    "CudaSharedMemoryRegister": "send tensors in the message instead",
    "CudaSharedMemoryUnregister": "send tensors in the message instead",
    "TraceSetting": "requests are not traced",
    "LogSettings": "restart the server with --log-level instead",
}


@dataclass(frozen=True)
class ServiceOptions:
    """`version` is the server's own; `strict_readiness` as in ServerOptions."""

    version: str
    strict_readiness: bool = False


class InferenceService(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The servicer. The rpcs themselves are documented in inference.proto."""

    def __init__(self, manager: ModelManager, options: ServiceOptions) -> None:
        """`manager` may still be starting: ServerReady says when it has ended."""
        self._manager = manager
        self._options = options

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: D102
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: D102
        return pb.ServerReadyResponse(ready=self.ready)

    @property
    def ready(self) -> bool:
        """What ServerReady answers."""
        return self._manager.all_ready if self._options.strict_readiness else self._manager.started

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: D102
        try:
            self._manager.find(request.name, request.version)
        except RepositoryError as error:
            if error.code is grpc.StatusCode.INVALID_ARGUMENT:
                await _abort(context, error)
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(  # noqa: D102
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=self._options.version, extensions=EXTENSIONS)

    async def ModelMetadata(  # noqa: D102
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        config = (await self._find(request.name, request.version, context)).config
        batch = [-1] if config.max_batch_size > 0 else []
        response = pb.ModelMetadataResponse(
            name=config.name,
            versions=[str(loaded.version) for loaded in self._manager.versions(config.name)],
            platform=config.platform,
        )
        for item in config.input:
            response.inputs.add(name=item.name, datatype=protocol_datatype(item.data_type), shape=[*batch, *item.dims])
        for result in config.output:
            response.outputs.add(
                name=result.name, datatype=protocol_datatype(result.data_type), shape=[*batch, *result.dims]
            )
        return response

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: D102
        loaded = await self._find(request.name, request.version, context)
        return pb.ModelConfigResponse(config=loaded.config)

    async def ModelStatistics(  # noqa: D102
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        if request.version:
            chosen = [await self._find(request.name, request.version, context)]
        elif request.name:
            await self._find(request.name, "", context)
            chosen = self._manager.versions(request.name)
        else:
            chosen = [loaded for name in self._manager.names() for loaded in self._manager.versions(name)]
        return pb.ModelStatisticsResponse(model_stats=[_statistics(loaded) for loaded in chosen])

    async def RepositoryIndex(  # noqa: D102
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        await _refuse_repository_name(request.repository_name, context)
        response = pb.RepositoryIndexResponse()
        try:
            entries = await self._manager.index(request.ready)
        except RepositoryError as error:
            await _abort(context, error)
        for entry in entries:
            response.models.add(name=entry.name, version=entry.version, state=str(entry.state), reason=entry.reason)
        return response

    async def RepositoryModelLoad(  # noqa: D102
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        await _refuse_repository_name(request.repository_name, context)
        try:
            await self._manager.load(request.model_name, _config_override(request.parameters))
        except RepositoryError as error:
            await _abort(context, error, f"failed to load model '{request.model_name}': ")
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: D102
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        await _refuse_repository_name(request.repository_name, context)
        try:
            _refuse_parameters(request.parameters.keys() - {"unload_dependents"})
            with_needed = request.parameters["unload_dependents"].bool_param  # false if it is not given
            await self._manager.unload(request.model_name, with_needed)
        except RepositoryError as error:
            await _abort(context, error, f"failed to unload model '{request.model_name}': ")
        return pb.RepositoryModelUnloadResponse()

    async def _find(self, name: str, version: str, context: Context) -> LoadedVersion:
        try:
            return self._manager.find(name, version)
        except RepositoryError as error:
            await _abort(context, error)


def _not_served(method: str, instead: str) -> Callable[[InferenceService, Any, Context], Awaitable[None]]:
    async def refuse(self: InferenceService, request: Any, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served by this server; {instead}")

    return refuse


for _method, _instead in _NOT_SERVED.items():
    setattr(InferenceService, _method, _not_served(_method, _instead))


async def _abort(context: Context, error: RepositoryError, prefix: str = "") -> NoReturn:
    await context.abort(error.code, prefix + error.message)
    raise AssertionError("abort() has returned")


async def _refuse_repository_name(name: str, context: Context) -> None:
    if name:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, f"repositories have no names here; leave repository_name empty, not '{name}'"
        )


def _refuse_parameters(names: set[str]) -> None:
    if any(name.startswith("file:") for name in names):
        raise RepositoryError(
            grpc.StatusCode.UNIMPLEMENTED,
            "files cannot be sent with a load request; publish the version into the repository",
        )
    if names:
        raise RepositoryError(grpc.StatusCode.INVALID_ARGUMENT, f"unknown parameters: {', '.join(sorted(names))}")


def _config_override(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> str | None:
    _refuse_parameters(parameters.keys() - {"config"})
    if "config" not in parameters:
        return None
    if parameters["config"].WhichOneof("parameter_choice") != "string_param":
        raise RepositoryError(
            grpc.StatusCode.INVALID_ARGUMENT, "parameter 'config' must be a string with a model configuration as JSON"
        )
    return parameters["config"].string_param


def _duration(total: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total["count"], ns=total["ns"])


def _statistics(loaded: LoadedVersion) -> pb.ModelStatistics:
    totals: Statistics = loaded.servable.statistics()
    return pb.ModelStatistics(
        name=loaded.config.name,
        version=str(loaded.version),
        last_inference=totals["last_inference_ms"],
        inference_count=totals["inference_count"],
        execution_count=totals["execution_count"],
        inference_stats=pb.InferStatistics(
            success=_duration(totals["success"]),
            fail=_duration(totals["fail"]),
            queue=_duration(totals["queue"]),
            compute_input=_duration(totals["compute_input"]),
            compute_infer=_duration(totals["compute_infer"]),
            compute_output=_duration(totals["compute_output"]),
            cache_hit=_duration(totals["cache_hit"]),
            cache_miss=_duration(totals["cache_miss"]),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=batch["batch_size"],
                compute_input=_duration(batch["compute_input"]),
                compute_infer=_duration(batch["compute_infer"]),
                compute_output=_duration(batch["compute_output"]),
            )
            for batch in totals["batch_stats"]
        ],
    )
