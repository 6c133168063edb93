# SPDX-License-Identifier: Apache-2.0
"""One call of the native front end: what the transport tells of it, and the context that its servicer gets."""

# grpc.aio.ServicerContext documents the methods of Context.
# ruff: noqa: D102

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import grpc
import grpc.aio

from gristmill.frontend.native_thread import answer_in_thread

if TYPE_CHECKING:
    from gristmill._core import TlsContext

    Handler = grpc.RpcMethodHandler[Any, Any]
    Entries = tuple[tuple[str, str | bytes], ...]

# In the order in which gRPC takes a certificate's name from them.
_IDENTITY_KEYS = ("x509_subject_alternative_name", "x509_common_name")

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# What gRPC lets metadata be; the values of names that end in "-bin" may be any bytes.
_NAME = re.compile("[0-9a-z_.-]+")
_VALUE = re.compile(b"[ -~]*")
# HTTP/2's and gRPC's own. As by gRPC core, a servicer's are left out.
_RESERVED = {
    *("content-length", "content-type", "te"),
    *("grpc-accept-encoding", "grpc-encoding", "grpc-message", "grpc-status", "grpc-timeout"),
}

_log = logging.getLogger(__name__)


class EventKind(IntEnum):
    """As csrc/bindings/native_transport.h numbers them."""

    CALL = 0
    MESSAGE = 1
    HALF_CLOSE = 2
    SENT = 3
    CANCEL = 4


class Metadatum(NamedTuple):
    """One entry of what a client sends along, as grpc.aio gives it to servicers."""

    key: str
    value: str | bytes


class Transport(Protocol):
    """What this front end needs of the core's NativeTransport."""

    def listen(self, address: str, tls: TlsContext | None = None) -> int: ...
    def start(self) -> None: ...
    def drain(self) -> None: ...
    def stop(self) -> None: ...
    def fileno(self) -> int: ...
    def take_events(self) -> list[tuple[int, int, Any]]: ...
    def set_encoding(self, call: int, encoding: int) -> None: ...
    def send_initial_metadata(self, call: int, metadata: list[tuple[str, bytes]]) -> None: ...
    def send_message(self, call: int, message: bytes, may_compress: bool) -> None: ...
    def finish(self, call: int, code: int, details: str, trailing_metadata: list[tuple[str, bytes]]) -> None: ...
    def read_more(self, call: int) -> None: ...
    @property
    def connections(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def infer_calls(self) -> int: ...


class Call:
    """What the transport tells of one call, and what it is told."""

    def __init__(
        self,
        transport: Transport,
        number: int,
        path: str,
        metadata: Entries,
        peer: str,
        time_left_s: float | None,
        auth: Mapping[str, list[bytes]],
    ) -> None:
        """`metadata` and `time_left_s` are what the client's headers say, `auth` is what TLS knows of it."""
        self.transport = transport
        self.number = number
        self.path = path
        self.metadata = tuple(Metadatum(*entry) for entry in metadata)
        self.peer = peer
        self.auth = auth
        self.deadline_s = None if time_left_s is None else time.monotonic() + time_left_s
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        self._is_over = False
        self._messages: list[bytes] = []
        self._half_closed = False
        self._changed = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    def on_event(self, kind: int, payload: Any) -> None:
        """Take in an event of the transport's."""
        if kind == EventKind.MESSAGE:
            self._messages.append(payload)
        elif kind == EventKind.HALF_CLOSE:
            self._half_closed = True
        elif kind == EventKind.SENT:
            self._sent.set()
        elif kind == EventKind.CANCEL:
            self.cancel()
        self._changed.set()

    def cancel(self) -> None:
        """End the servicer's work on it."""
        self.cancelled = True
        self.end()
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Nothing more comes or goes. Whoever waits for that, in a thread or a task of its own, is told."""
        self._is_over = True
        self._changed.set()
        self._sent.set()

    async def receive(self) -> bytes | None:
        """The next message; None after the last one. Raises grpc.aio.UsageError once the call is over."""
        while not self._messages:
            self._raise_if_over()
            if self._half_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        self.transport.read_more(self.number)
        return self._messages.pop(0)

    async def send(self, message: bytes, may_compress: bool) -> None:
        """Wait until the one before has left, so that a slow client slows the servicer down. Raises as `receive`."""
        await self._sent.wait()
        self._raise_if_over()
        self._sent.clear()
        self.transport.send_message(self.number, message, may_compress)

    def _raise_if_over(self) -> None:
        if self._is_over:
            raise grpc.aio.UsageError("RPC already finished.")


class AbortError(grpc.aio.AbortError):
    """Ends a servicer's method; the context has the status."""


class Context(grpc.aio.ServicerContext[Any, Any]):
    """One call as its servicer sees it."""

    def __init__(self, call: Call) -> None:
        """Of a call that no other context stands for."""
        self._call = call
        self._serialize: Callable[[Any], bytes] | None = None
        self._deserialize: Callable[[bytes], Any] | None = None
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._trailing_metadata: Entries = ()
        self._initial_metadata_is_sent = False
        self._may_compress_next = True
        self._callbacks: list[Callable[[Any], None]] = []
        self._abort: AbortError | None = None
        self._status_is_sent = False
        self._finished = False

    def use(self, handler: Handler) -> None:
        """Read and write as `handler` does."""
        self._serialize = handler.response_serializer
        self._deserialize = handler.request_deserializer

    async def read(self) -> Any:
        self._raise_if_aborted()
        data = await self._call.receive()
        if data is None:
            return grpc.aio.EOF
        return self._deserialize(data) if self._deserialize else data

    async def write(self, message: Any) -> None:
        self._raise_if_aborted()
        data = self._serialize(message) if self._serialize else message
        if not isinstance(data, bytes):
            raise TypeError(f"expected bytes, got {type(data).__name__}")
        self._initial_metadata_is_sent = True
        may_compress, self._may_compress_next = self._may_compress_next, True
        await self._call.send(data, may_compress)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._raise_if_aborted()
        if self._initial_metadata_is_sent:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        entries = _entries(initial_metadata)
        self._initial_metadata_is_sent = True
        self._call.transport.send_initial_metadata(self._call.number, entries)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        if self._abort is not None:
            raise grpc.aio.UsageError("Abort already called!")
        if code is grpc.StatusCode.OK:
            raise grpc.aio.UsageError("Abort with OK status code is not allowed")
        self.set_code(code)
        self.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self._abort = AbortError("Locally aborted.")
        self._send_status()  # now, whatever the servicer still does about the exception
        raise self._abort

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        _entries(trailing_metadata)  # raises where the servicer can see what it did
        self._trailing_metadata = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing_metadata

    def invocation_metadata(self) -> Any:
        return self._call.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        # Numbers are taken too, as by grpc.aio.
        self._code = code if isinstance(code, grpc.StatusCode) else _CODES.get(code, grpc.StatusCode.UNKNOWN)

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str | None) -> None:
        if not isinstance(details, str | None):
            raise TypeError(f"expected details of type str, got {type(details).__name__}")
        # Names of files may hold what UTF-8 has no place for.
        self._details = (details or "").encode(errors="replace").decode()

    def details(self) -> Any:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        if self._initial_metadata_is_sent:
            raise RuntimeError("Compression setting must be specified before sending initial metadata")
        self._call.transport.set_encoding(self._call.number, compression)

    def disable_next_message_compression(self) -> None:
        self._may_compress_next = False

    def peer(self) -> str:
        return self._call.peer

    def peer_identities(self) -> Any:
        key = self.peer_identity_key()
        return None if key is None else self._call.auth[key]

    def peer_identity_key(self) -> str | None:
        return next((key for key in _IDENTITY_KEYS if key in self._call.auth), None)

    def auth_context(self) -> Mapping[str, Any]:
        return self._call.auth

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None without a deadline, as grpc.aio's
        deadline_s = self._call.deadline_s
        return None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self._call.cancelled

    def done(self) -> bool:
        return self._finished

    def finish(self) -> None:
        """Send the status, and run the callbacks."""
        self._finished = True
        self._call.end()
        self._send_status()
        for callback in self._callbacks:
            try:
                callback(self)
            except Exception:
                _log.exception("a callback of %s failed", self._call.path)

    def _send_status(self) -> None:
        if self._status_is_sent:
            return
        self._status_is_sent = True
        trailing_metadata = _entries(self._trailing_metadata)
        self._call.transport.finish(self._call.number, self._code.value[0], self._details, trailing_metadata)

    def _raise_if_aborted(self) -> None:
        if self._abort is not None:
            raise self._abort


async def answer(handler: Handler, context: Context) -> None:
    """Run the handler's method and send what it answers; the status is left to context.finish."""
    context.use(handler)
    method: Any = (
        (handler.stream_stream if handler.response_streaming else handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream if handler.response_streaming else handler.unary_unary)
    )
    if handler.request_streaming:
        request: Any = _requests(context)
    else:
        request = await context.read()
        if request is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INTERNAL, "expected one request message, got none")
    if inspect.isasyncgenfunction(method):
        async for response in method(request, context):
            await context.write(response)
        return
    if inspect.iscoroutinefunction(method):
        response = await method(request, context)  # one that streams writes by itself
    else:
        response = await answer_in_thread(handler, method, request, context)
    if not handler.response_streaming and context.code() is grpc.StatusCode.OK:  # else no client looks at it
        await context.write(response)


async def _requests(context: Context) -> Any:
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request


def _entries(metadata: Any) -> list[tuple[str, bytes]]:
    """As the transport takes them. Raises TypeError or ValueError for what cannot be metadata."""
    entries = []
    for name, value in metadata or ():
        if not isinstance(name, str) or not isinstance(value, str | bytes):
            raise TypeError(f"expected metadata of str, and str or bytes, got {name!r}: {value!r}")
        data = value.encode() if isinstance(value, str) else value
        if not _NAME.fullmatch(name) or not (name.endswith("-bin") or _VALUE.fullmatch(data)):
            raise ValueError(
                f"expected metadata with a name of 0-9, a-z, '_', '.' and '-', and a value of printable ASCII unless "
                f"the name ends in -bin, got {name!r}: {value!r}"
            )
        if name not in _RESERVED:
            entries.append((name, data))
    return entries
