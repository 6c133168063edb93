# SPDX-License-Identifier: Apache-2.0
"""The grpc.aio front end: ModelInfer and ModelStreamInfer travel as raw bytes between the socket and the core.

Belongs to one event loop. Python neither parses nor builds a message of theirs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

if TYPE_CHECKING:
    from gristmill.frontend.tls import ServerTls
    from gristmill.options import ServerOptions

    # (code, payload): the serialized response if code is 0, or None where a decoupled model has sent all before; else
    # the message of the error. Of such a model's answers, all but the last have the code None.
    Answer = tuple[int | None, bytes | str | None]
    Context = grpc.aio.ServicerContext[bytes, bytes]

SERVICE = "inference.GRPCInferenceService"

# gRPC keeps these in 32 bits, and takes the largest for none.
_LONGEST_MS = 2**31 - 1

# Of one stream, requests that are not answered.
_MOST_TURNS = 1000

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Bridge(Protocol):
    """What this front end needs of the core's AioBridge."""

    def fileno(self) -> int: ...  # noqa: D102
    def submit(  # noqa: D102
        self,
        request: bytes,
        tag: Any,
        timeout_s: float | None = None,
        *,
        in_stream: bool = False,
        errors_end_stream: bool = False,
    ) -> int: ...
    def flush(self) -> None: ...  # noqa: D102
    def cancel(self, ticket: int) -> None: ...  # noqa: D102
    def drain(self) -> list[tuple[Any, int | None, bytes | str | None]]: ...  # noqa: D102


class _Call:
    """A call of ModelInfer, in the core."""

    def __init__(self, answer: asyncio.Future[Answer]) -> None:
        self.answer = answer

    def take(self, answer: Answer) -> None:
        if not self.answer.done():  # else the call was cancelled
            self.answer.set_result(answer)


class _Turn:
    """One request of a stream."""

    def __init__(self, stream: _Stream) -> None:
        self.stream = stream
        self.ticket = -1
        self.last: Answer | None = None

    def take(self, answer: Answer) -> None:
        self.stream.take(self, answer)


class _Stream:
    """The requests of one call of ModelStreamInfer, and their answers in the order in which they are to be sent."""

    def __init__(self) -> None:
        self.turns: deque[_Turn] = deque()
        # Each with whether it is its request's last; None: there will be no more.
        self.answers: asyncio.Queue[tuple[Answer, bool] | None] = asyncio.Queue()
        self._is_half_closed = False

    def take(self, turn: _Turn, answer: Answer) -> None:
        if answer[0] is None:
            self.answers.put_nowait((answer, False))
            return
        turn.last = answer
        while self.turns and (last := self.turns[0].last) is not None:
            self.turns.popleft()
            self.answers.put_nowait((last, True))
        self._end_if_done()

    def half_close(self) -> None:
        self._is_half_closed = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._is_half_closed and not self.turns:
            self.answers.put_nowait(None)


class InferHandler:
    """Answers ModelInfer and ModelStreamInfer through a bridge. open -> any number of calls -> close."""

    def __init__(self, bridge: Bridge) -> None:
        """`bridge` is used by the running loop alone."""
        self._bridge = bridge
        self._loop = asyncio.get_running_loop()
        self._calls = 0
        self._flush_is_due = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def calls(self) -> int:
        """Calls of ModelInfer and requests of ModelStreamInfer not yet answered."""
        return self._calls

    def open(self) -> None:
        """Begin to take completions from the bridge."""
        self._loop.add_reader(self._bridge.fileno(), self._drain)

    def close(self) -> None:
        """Stop taking completions; calls still waiting are left unanswered."""
        self._loop.remove_reader(self._bridge.fileno())

    async def wait_idle(self) -> None:
        """Wait until no call is left unanswered."""
        await self._idle.wait()

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """The handler to give to a server before any other of the same service."""
        infer: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._infer)
        stream: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._stream_infer)
        return grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": infer, "ModelStreamInfer": stream})

    async def _infer(self, request: bytes, context: Context) -> bytes:
        call = _Call(self._loop.create_future())
        ticket = self._submit(request, call, context)
        try:
            answer = await call.answer
        except asyncio.CancelledError:
            self._bridge.cancel(ticket)
            raise
        finally:
            self._forget()
        payload = await self._payload(answer, context)
        assert payload is not None, "only answers in streams may have been sent before"
        return payload

    async def _stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answers leave in the order of the requests, but for those of decoupled models, which leave when they come."""
        errors_end_stream = ("triton_grpc_error", "true") in (context.invocation_metadata() or ())
        stream = _Stream()
        room = asyncio.Semaphore(_MOST_TURNS)

        async def read() -> None:
            try:
                async for request in requests:
                    await room.acquire()
                    turn = _Turn(stream)
                    stream.turns.append(turn)
                    turn.ticket = self._submit(
                        request, turn, context, in_stream=True, errors_end_stream=errors_end_stream
                    )
            finally:
                stream.half_close()

        reader = self._loop.create_task(read())
        try:
            while (item := await stream.answers.get()) is not None:
                answer, is_last = item
                if is_last:
                    self._forget()
                payload = await self._payload(answer, context)
                if payload is not None:
                    yield payload
                if is_last:
                    room.release()
        finally:
            reader.cancel()
            for turn in stream.turns:
                if turn.last is None:
                    self._bridge.cancel(turn.ticket)
                self._forget()
            while not stream.answers.empty():
                item = stream.answers.get_nowait()
                if item is not None and item[1]:
                    self._forget()

    def _submit(self, request: bytes, taker: _Call | _Turn, context: Context, **envelope: bool) -> int:
        """`taker` gets the answers."""
        self._calls += 1
        self._idle.clear()
        ticket = self._bridge.submit(request, taker, context.time_remaining(), **envelope)
        if not self._flush_is_due:  # after the other calls that this turn of the loop has brought
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        return ticket

    async def _payload(self, answer: Answer, context: Context) -> bytes | None:
        """What is to be sent; aborts the call if that is an error."""
        code, payload = answer
        if isinstance(payload, str):
            await context.abort(_STATUS_CODES.get(code or 0, grpc.StatusCode.UNKNOWN), payload)
            raise AssertionError("abort() has returned")
        return payload

    def _forget(self) -> None:
        self._calls -= 1
        if self._calls == 0:
            self._idle.set()

    def _flush(self) -> None:
        self._flush_is_due = False
        self._bridge.flush()

    def _drain(self) -> None:
        for taker, code, payload in self._bridge.drain():
            taker.take((code, payload))


class AioFrontend:
    """The grpc.aio front end of one server: its ports, its calls, and the server that takes servicers."""

    def __init__(self, bridge: Bridge, options: ServerOptions) -> None:
        """`bridge` serves nobody else."""
        self._infer = InferHandler(bridge)
        self.server = create_server(options)
        self.server.add_generic_rpc_handlers([self._infer.rpc_handler()])

    @property
    def calls(self) -> int:
        """Calls of ModelInfer and requests of ModelStreamInfer not yet answered."""
        return self._infer.calls

    def bind(self, address: str, tls: ServerTls | None = None) -> int:
        """Listen on "host:port", "[ipv6]:port" or "unix:path"; returns the port. Raises OSError."""
        return bind(self.server, address, tls)

    async def start(self) -> None:
        """Take calls."""
        self._infer.open()
        await self.server.start()

    async def wait_idle(self) -> None:
        """Wait until nothing is left unanswered."""
        await self._infer.wait_idle()

    def close(self) -> None:
        """Stop taking completions, once the server has stopped."""
        self._infer.close()


def create_server(options: ServerOptions) -> grpc.aio.Server:
    """A server without handlers or ports."""
    seconds = {
        "grpc.keepalive_time_ms": options.keepalive_time_s,
        "grpc.keepalive_timeout_ms": options.keepalive_timeout_s,
        "grpc.max_connection_idle_ms": options.max_connection_idle_s,
        "grpc.max_connection_age_ms": options.max_connection_age_s,
        "grpc.max_connection_age_grace_ms": options.max_connection_age_grace_s,
    }
    return grpc.aio.server(
        compression=options.response_compression.algorithm,
        options=[
            ("grpc.so_reuseport", int(options.reuse_port)),
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", options.max_message_bytes),
            # Clients may keep idle connections alive with pings; without these they are sent away as too many.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            *((name, min(int(value * 1000), _LONGEST_MS)) for name, value in seconds.items() if value > 0),
        ],
    )


def bind(server: grpc.aio.Server, address: str, tls: ServerTls | None = None) -> int:
    """Listen on an address and return its port. Raises OSError if that cannot be had."""
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: the port is in use or not allowed; choose another") from error
