# SPDX-License-Identifier: Apache-2.0
"""A message that does not decode is its sender's fault: INVALID_ARGUMENT.

On its own, grpc.aio answers UNKNOWN to such a message and logs a traceback for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]


class DecodingServer:
    """Stands in for a server while servicers are added to it, and checks what their unary methods receive."""

    def __init__(self, server: grpc.aio.Server) -> None:
        """`server` gets the handlers."""
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As of grpc.aio.Server."""
        self._server.add_generic_rpc_handlers([_DecodingHandler(handler) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, _Handler]) -> None:
        """As of grpc.aio.Server."""
        checked = {name: _checked(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, checked)


class _DecodingHandler(grpc.GenericRpcHandler):
    def __init__(self, handler: grpc.GenericRpcHandler) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        handler = self._handler.service(handler_call_details)
        return None if handler is None else _checked(handler_call_details.method, handler)


def _checked(path: str, handler: _Handler) -> _Handler:
    decode = handler.request_deserializer
    answer: Any = handler.unary_unary  # a coroutine function, which the type does not say
    if decode is None or answer is None:
        return handler

    async def decode_and_answer(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            request = decode(data)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request to {path} does not decode: {error}")
        return await answer(request, context)

    return grpc.unary_unary_rpc_method_handler(decode_and_answer, None, handler.response_serializer)
