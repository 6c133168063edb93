# SPDX-License-Identifier: Apache-2.0
"""The native front end: HTTP/2 and ModelInfer in C++; every other call is answered by ordinary Python servicers.

NativeServer has the public interface of grpc.aio.Server, so that servicers cannot tell which of the two they are on.
It belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from gristmill.frontend.native_call import AbortError, Call, Context, EventKind, Transport, answer

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

    from gristmill.frontend.native_call import Entries
    from gristmill.frontend.tls import ServerTls

# Between two looks at what a server that is stopping waits for.
_POLL_S = 0.01

_log = logging.getLogger(__name__)


class NativeFrontend:
    """The native front end of one server: its ports, its calls, and the server that takes servicers."""

    def __init__(self, transport: Transport) -> None:
        """`transport` serves nobody else."""
        self._transport = transport
        self.server = NativeServer(transport)

    @property
    def calls(self) -> int:
        """Calls of ModelInfer not yet answered."""
        return self._transport.infer_calls

    def bind(self, address: str, tls: ServerTls | None = None) -> int:
        """Listen on "host:port", "[ipv6]:port" or "unix:path"; returns the port. Raises OSError."""
        from gristmill._core import CoreError

        try:
            return self._transport.listen(address, tls.context if tls else None)
        except CoreError as error:
            raise OSError(error.message) from error

    async def start(self) -> None:
        """Take calls."""
        await self.server.start()

    async def wait_idle(self) -> None:
        """Wait until no call of ModelInfer is left unanswered."""
        while self._transport.infer_calls:  # noqa: ASYNC110 (only at the end, and the loops have no event for it)
            await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Nothing is left to close once the server has stopped."""


class NativeServer(grpc.aio.Server):
    """Serves Python servicers on a transport. Handlers and ports first, then start, then stop."""

    def __init__(self, transport: Transport, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        """`transport` serves nobody else; `interceptors` see every call that reaches Python, the first one first."""
        self._transport = transport
        self._interceptors = tuple(interceptors)
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._methods: dict[str, Handler] = {}
        self._calls: dict[int, Call] = {}
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Handlers that are asked in the order in which they were added."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Handlers that are found without asking, before any generic one."""
        self._methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_insecure_port(self, address: str) -> int:
        """Listen on "host:port", "[ipv6]:port" or "unix:path"; returns the port. Raises CoreError."""
        return self._transport.listen(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Raise TypeError: gRPC's credentials do not show their certificates; NativeFrontend.bind takes a ServerTls."""
        raise TypeError(f"expected NativeFrontend.bind with a ServerTls, got {type(server_credentials).__name__}")

    async def start(self) -> None:
        """Take connections."""
        self._loop.add_reader(self._transport.fileno(), self._take_events)
        self._transport.start()

    async def stop(self, grace: float | None) -> None:
        """Take no new connection; cancel what is not finished within `grace` seconds (None: at once); then close.

        A second call with a shorter grace period takes effect at once.
        """
        self._transport.drain()
        if grace is not None:
            try:
                async with asyncio.timeout(grace):
                    # Connections close once their last answer has been written.
                    while self._transport.calls or self._transport.connections:  # noqa: ASYNC110 (as above)
                        await asyncio.sleep(_POLL_S)
            except TimeoutError:
                pass
        for call in list(self._calls.values()):
            call.cancel()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 (grpc's interface)
        """Wait until the server has stopped; whether it is still running after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False

    async def _stop(self) -> None:
        # The transport waits for its calls, which this loop has to finish meanwhile.
        await self._loop.run_in_executor(None, self._transport.stop)
        self._loop.remove_reader(self._transport.fileno())
        self._stopped.set()

    def _take_events(self) -> None:
        for kind, number, payload in self._transport.take_events():
            if kind == EventKind.CALL:
                path, metadata, peer, time_left_s, auth = payload
                call = Call(self._transport, number, path, metadata, peer, time_left_s, auth)
                self._calls[number] = call
                context = Context(call)
                call.task = self._loop.create_task(self._serve(call, context))
                # Not at the end of the coroutine: one that is cancelled before its first step never gets there.
                call.task.add_done_callback(functools.partial(self._finish, call, context))
            elif (known := self._calls.get(number)) is not None:
                known.on_event(kind, payload)

    async def _serve(self, call: Call, context: Context) -> None:
        handler = await self._find(call)
        if handler is None:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details("Method not found!")
        else:
            await answer(handler, context)

    def _finish(self, call: Call, context: Context, task: asyncio.Task[None]) -> None:
        del self._calls[call.number]
        if task.cancelled():
            context.set_code(grpc.StatusCode.CANCELLED)
            context.set_details("Cancelled")
        elif (error := task.exception()) is not None and not isinstance(error, AbortError):
            _log.error("%s failed", call.path, exc_info=error)
            if context.code() is grpc.StatusCode.OK:  # else the servicer has chosen one
                context.set_code(grpc.StatusCode.UNKNOWN)
            context.set_details(f"Unexpected {type(error)}: {error}")
        context.finish()

    async def _find(self, call: Call) -> Handler | None:
        async def find(details: grpc.HandlerCallDetails) -> Handler | None:
            if (registered := self._methods.get(details.method)) is not None:
                return registered
            return next((found for one in self._handlers if (found := one.service(details)) is not None), None)

        def intercepted(interceptor: grpc.aio.ServerInterceptor, then: Any) -> Any:
            async def intercept(details: grpc.HandlerCallDetails) -> Any:
                return await interceptor.intercept_service(then, details)

            return intercept

        continuation: Any = find
        for interceptor in reversed(self._interceptors):
            continuation = intercepted(interceptor, continuation)
        handler: Handler | None = await continuation(_Details(call.path, call.metadata))
        return handler


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str, metadata: Entries) -> None:
        self.method = method
        self.invocation_metadata = metadata
