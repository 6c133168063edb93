# SPDX-License-Identifier: Apache-2.0
"""The synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
from gristmill_protos import inference_pb2 as pb
from gristmill_protos.model_config_pb2 import ModelConfig

from gristmill_client.codec import InferResult, Parameters, RequestOptions
from gristmill_client.datatypes import Array
from gristmill_client.flows import Flow, Flows, RepositoryParameter
from gristmill_client.models import ModelMetadata, RepositoryEntry, ServerMetadata
from gristmill_client.options import DEFAULT_URL, ClientOptions
from gristmill_client.transport import CallContext

T = TypeVar("T")


class Client:
    """A connection to one server; a context manager. May be shared by threads.

    with Client("localhost:8001") as client:
        result = client.infer("magika", np.zeros((1, 2048), np.int32))

    Every method takes `timeout` in seconds: None means the client's default (30 s), math.inf means no deadline. Every
    method raises GristmillError or one of its subclasses.
    """

    def __init__(self, url: str = DEFAULT_URL, options: ClientOptions | None = None) -> None:
        """url: host:port. The connection is made by the first call."""
        self.url = url
        self.options = options or ClientOptions()
        arguments = self.options.channel_arguments()
        if self.options.tls is None:
            self._channel = grpc.insecure_channel(url, arguments)
        else:
            self._channel = grpc.secure_channel(url, self.options.tls.credentials(), arguments)
        self._flows = Flows()
        self._methods: dict[str, Callable[..., bytes]] = {}

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; calls still running fail with Cancelled."""
        self._channel.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array] | Array,
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        parameters: Parameters | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> InferResult:
        """Run the model on arrays by input name, or on one array where the model has one input.

        version: a number, an alias, or "" for the newest. outputs: the ones wanted; None means all.
        """
        options = RequestOptions(version=version, outputs=outputs, parameters=parameters, request_id=request_id)
        return self._run(self._flows.infer(model, inputs, options), timeout)

    def server_live(self, *, timeout: float | None = None) -> bool:
        """Whether the process answers."""
        return self._run(self._flows.server_live(), timeout)

    def server_ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server takes requests."""
        return self._run(self._flows.server_ready(), timeout)

    def server_metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """The server's name, version and extensions."""
        return self._run(self._flows.server_metadata(), timeout)

    def model_ready(self, model: str, version: str = "", *, timeout: float | None = None) -> bool:
        """Whether the model takes requests."""
        return self._run(self._flows.model_ready(model, version), timeout)

    def model_metadata(self, model: str, version: str = "", *, timeout: float | None = None) -> ModelMetadata:
        """The model's inputs, outputs and versions."""
        return self._run(self._flows.model_metadata(model, version), timeout)

    def model_config(self, model: str, version: str = "", *, timeout: float | None = None) -> ModelConfig:
        """The model's whole configuration, as the server completed it."""
        return self._run(self._flows.model_config(model, version), timeout)

    def model_statistics(
        self, model: str = "", version: str = "", *, timeout: float | None = None
    ) -> list[pb.ModelStatistics]:
        """Totals since each version was loaded, of one model or ("") of all."""
        return self._run(self._flows.model_statistics(model, version), timeout)

    def models(self, *, ready_only: bool = False, timeout: float | None = None) -> list[RepositoryEntry]:
        """What is in the repository, and its state."""
        return self._run(self._flows.models(ready_only), timeout)

    def load_model(
        self,
        model: str,
        *,
        parameters: Mapping[str, RepositoryParameter] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Load the model, or load it again, where the server is in explicit mode."""
        self._run(self._flows.load_model(model, parameters), timeout)

    def unload_model(
        self,
        model: str,
        *,
        parameters: Mapping[str, RepositoryParameter] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Unload the model; what it has admitted is still answered."""
        self._run(self._flows.unload_model(model, parameters), timeout)

    def _run(self, flow: Flow[T], timeout: float | None) -> T:
        context = CallContext(self.url, self.options, timeout)
        try:
            call = next(flow)
            while True:
                try:
                    answer = self._method(call.path)(call.request, **context.arguments())
                except grpc.RpcError as error:
                    call = flow.throw(context.error(error, call))
                else:
                    call = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def _method(self, path: str) -> Callable[..., bytes]:
        """The call for a path, bytes in and out; made once, since making it costs as much as a call."""
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = self._channel.unary_unary(path)
        return method
