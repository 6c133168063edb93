# SPDX-License-Identifier: Apache-2.0
"""Every method of the clients as a flow: a generator that yields calls, is sent their answers, and returns the result.

A flow knows no transport and no event loop, so the synchronous and the asyncio client run the same ones:

    flow = flows.infer("m", array)
    call = next(flow)           # bytes to send, and where
    call = flow.send(answer)    # or flow.throw(error); StopIteration.value is the result
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from gristmill_protos import inference_pb2 as pb
from gristmill_protos.model_config_pb2 import ModelConfig

from gristmill_client import datatypes
from gristmill_client.codec import InferResult, RequestOptions, decode_response, encode_request
from gristmill_client.datatypes import Array
from gristmill_client.errors import GristmillError, Internal, InvalidArgument
from gristmill_client.models import ModelMetadata, RepositoryEntry, ServerMetadata
from gristmill_client.options import SERVICE

INFER_PATH = f"/{SERVICE}/ModelInfer"

T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=Message)
RepositoryParameter = bool | int | str | bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call: the method's path, the serialised request, and the model it is about ("" for none)."""

    path: str
    request: bytes
    model: str = ""


Flow = Generator[Call, bytes, T]


class Flows:
    """The flows, and the metadata cache that lets `infer` take a bare array."""

    def __init__(self) -> None:
        """The cache is empty."""
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}

    def server_live(self) -> Flow[bool]:
        """Whether the process answers."""
        return (yield from _call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse.FromString)).live

    def server_ready(self) -> Flow[bool]:
        """Whether the server takes requests."""
        return (yield from _call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse.FromString)).ready

    def server_metadata(self) -> Flow[ServerMetadata]:
        """What the server says of itself."""
        answer = yield from _call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse.FromString)
        return ServerMetadata(answer.name, answer.version, tuple(answer.extensions))

    def model_ready(self, model: str, version: str) -> Flow[bool]:
        """Whether the model takes requests."""
        request = pb.ModelReadyRequest(name=model, version=version)
        return (yield from _call("ModelReady", request, pb.ModelReadyResponse.FromString, model)).ready

    def model_metadata(self, model: str, version: str) -> Flow[ModelMetadata]:
        """What the server says of the model, which is also remembered."""
        request = pb.ModelMetadataRequest(name=model, version=version)
        answer = yield from _call("ModelMetadata", request, pb.ModelMetadataResponse.FromString, model)
        metadata = ModelMetadata.of(answer)
        self._metadata[model, version] = metadata
        return metadata

    def model_config(self, model: str, version: str) -> Flow[ModelConfig]:
        """The configuration."""
        request = pb.ModelConfigRequest(name=model, version=version)
        return (yield from _call("ModelConfig", request, pb.ModelConfigResponse.FromString, model)).config

    def model_statistics(self, model: str, version: str) -> Flow[list[pb.ModelStatistics]]:
        """Totals since each version was loaded."""
        request = pb.ModelStatisticsRequest(name=model, version=version)
        answer = yield from _call("ModelStatistics", request, pb.ModelStatisticsResponse.FromString, model)
        return list(answer.model_stats)

    def models(self, ready_only: bool) -> Flow[list[RepositoryEntry]]:
        """What is in the repository."""
        request = pb.RepositoryIndexRequest(ready=ready_only)
        answer = yield from _call("RepositoryIndex", request, pb.RepositoryIndexResponse.FromString)
        return [RepositoryEntry(entry.name, entry.version, entry.state, entry.reason) for entry in answer.models]

    def load_model(self, model: str, parameters: Mapping[str, RepositoryParameter] | None) -> Flow[None]:
        """Load or reload."""
        self._forget(model)
        request = pb.RepositoryModelLoadRequest(model_name=model)
        _set_repository_parameters(request, parameters, model)
        yield from _call("RepositoryModelLoad", request, pb.RepositoryModelLoadResponse.FromString, model)

    def unload_model(self, model: str, parameters: Mapping[str, RepositoryParameter] | None) -> Flow[None]:
        """Unload."""
        self._forget(model)
        request = pb.RepositoryModelUnloadRequest(model_name=model)
        _set_repository_parameters(request, parameters, model)
        yield from _call("RepositoryModelUnload", request, pb.RepositoryModelUnloadResponse.FromString, model)

    def infer(self, model: str, inputs: Mapping[str, Array] | Array, options: RequestOptions) -> Flow[InferResult]:
        """One inference; the model's metadata first where its single input is still to be named."""
        if isinstance(inputs, np.ndarray):
            inputs = {(yield from self._single_input(model, inputs, options.version)): inputs}
        elif not isinstance(inputs, Mapping):
            raise InvalidArgument(
                f"inputs of model {model!r}: expected {{name: numpy array}} or one numpy array, got "
                f"{type(inputs).__name__}; wrap the values as numpy.asarray(value, dtype)",
                model=model,
            )
        request = encode_request(model, inputs, options)
        try:
            answer = yield Call(INFER_PATH, request, model)
        except GristmillError:
            # What is remembered may be the reason: the model may have changed since.
            self._forget(model)
            raise
        return decode_response(answer, model)

    def _single_input(self, model: str, array: Array, version: str) -> Flow[str]:
        """The name of the one input; never trusts a remembered answer to refuse the array."""
        metadata = self._metadata.get((model, version))
        if metadata is None or _objection(metadata, array):
            metadata = yield from self.model_metadata(model, version)
        objection = _objection(metadata, array)
        if objection:
            raise InvalidArgument(objection, model=model)
        return metadata.inputs[0].name

    def _forget(self, model: str) -> None:
        for key in [key for key in self._metadata if key[0] == model]:
            self._metadata.pop(key, None)


def _call(
    method: str, request: Message, parse: Callable[[bytes], MessageT], model: str = ""
) -> Generator[Call, bytes, MessageT]:
    answer = yield Call(f"/{SERVICE}/{method}", request.SerializeToString(), model)
    try:
        return parse(answer)
    except DecodeError as error:
        raise Internal(f"the answer to {method} cannot be read: {error}", model=model) from error


def _objection(metadata: ModelMetadata, array: Array) -> str:
    """Why the array cannot be the model's only input; "" if it can."""
    inputs = ", ".join(map(str, metadata.inputs))
    if len(metadata.inputs) != 1:
        return (
            f"model {metadata.name!r} has {len(metadata.inputs)} inputs ({inputs}), got one array without a name: "
            "pass {name: array, ...}"
        )
    expected = metadata.inputs[0].datatype
    try:
        actual = datatypes.datatype_of(array.dtype)
    except ValueError as error:
        return f"input {metadata.inputs[0].name!r} of model {metadata.name!r}: {error}"
    if actual != expected:
        hint = "an array of bytes or str" if expected == datatypes.BYTES else f"array.astype({_numpy_name(expected)!r})"
        return f"model {metadata.name!r} expects {inputs}, got an array of {array.dtype} ({actual}): pass {hint}"
    return ""


def _numpy_name(datatype: str) -> str:
    try:
        return datatypes.dtype_of(datatype).name
    except ValueError:
        return datatype


def _set_repository_parameters(
    request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest,
    parameters: Mapping[str, RepositoryParameter] | None,
    model: str,
) -> None:
    fields: dict[type, str] = {bool: "bool_param", int: "int64_param", str: "string_param", bytes: "bytes_param"}
    for name, value in (parameters or {}).items():
        if type(value) not in fields:
            raise InvalidArgument(
                f"parameter {name!r}: expected bool, int, str or bytes, got {type(value).__name__}", model=model
            )
        target: Any = request.parameters[name]
        setattr(target, fields[type(value)], value)
