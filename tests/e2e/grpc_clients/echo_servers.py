# SPDX-License-Identifier: Apache-2.0
"""A program: one servicer on grpc.aio.Server and on NativeServer, at a port and at a unix socket each.

Says where as one line of JSON, {"aio": [port, socket], "native": [...]}, and ends when its input ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from gristmill._core import NativeTransport
from gristmill.core import create_engine
from gristmill.frontend.native import NativeServer

SERVICE = "test.Echo"

ABORT_DETAILS = "größe % 100 %41\r\n\ttab, 世界 \x7f"
ABORT_METADATA = (("why", "gone"), ("why", "for good"), ("grpc-status-details-bin", b"\x08\x05\xff\x00"))
INITIAL_METADATA = (("first", "1"), ("first", "2"), ("empty", ""), ("first-bin", b"\x00\xff\x80"), ("empty-bin", b""))
TRAILING_METADATA = (("last", "a, b"), ("last-bin", b"\xfe"), ("last-bin", b"\x00" * 5), ("long", "x" * 2000))


def metadata_json(metadata: Any) -> bytes:
    """Names that begin with "x-" and their values in base64, in the order of the names."""
    found: dict[str, list[str]] = {}
    for name, value in metadata:
        if name.startswith("x-"):
            raw = value.encode() if isinstance(value, str) else value
            found.setdefault(name, []).append(base64.b64encode(raw).decode())
    return json.dumps(found, sort_keys=True).encode()


class Servicer:
    """Messages are plain bytes. A method's kind is what its signature says; see handlers()."""

    def __init__(self) -> None:
        self._cancelled: dict[bytes, asyncio.Event] = {}

    # --- one request, one answer

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    def in_thread(self, request: bytes, context: Any) -> bytes:
        return request

    async def metadata_in(self, request: bytes, context: Any) -> bytes:
        return metadata_json(context.invocation_metadata())

    async def metadata_out(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(INITIAL_METADATA)
        context.set_trailing_metadata(TRAILING_METADATA)
        return request

    async def has_deadline(self, request: bytes, context: Any) -> bytes:
        remaining_s = context.time_remaining()
        is_as_told = remaining_s is not None and 0 < remaining_s <= float(request) + 1  # clients round up
        return b"yes" if is_as_told else repr(remaining_s).encode()

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, ABORT_DETAILS, ABORT_METADATA)
        raise AssertionError

    async def abort_as_told(self, request: bytes, context: Any) -> bytes:
        number, _, details = request.partition(b" ")
        code = next(code for code in grpc.StatusCode if code.value[0] == int(number))
        await context.abort(code, details.decode())
        raise AssertionError

    async def abort_after_metadata(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(INITIAL_METADATA)
        context.set_trailing_metadata(TRAILING_METADATA)
        await context.abort(grpc.StatusCode.ABORTED, "late")
        raise AssertionError

    async def set_status(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("größer")
        context.set_trailing_metadata(TRAILING_METADATA)
        return request

    async def set_details(self, request: bytes, context: Any) -> bytes:
        context.set_details("all is well")
        return request

    async def set_status_answer_none(self, request: bytes, context: Any) -> Any:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("nothing")

    async def crash(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("last", "words"),))
        raise ValueError("größe %\n")

    async def crash_after_code(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        context.set_details("as set")
        raise ValueError("crashed")

    async def crash_in_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        raise ValueError("crashed")

    async def metadata_twice(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(INITIAL_METADATA)
        await context.send_initial_metadata(INITIAL_METADATA)
        return request

    async def gzip(self, request: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        return request

    async def deflate(self, request: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Deflate)
        return request

    async def hold(self, request: bytes, context: Any) -> bytes:
        """Send metadata, and end when the call is cancelled; `was_cancelled` with the same request tells."""
        cancelled = self._cancelled[request] = asyncio.Event()
        try:
            await context.send_initial_metadata(())
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def was_cancelled(self, request: bytes, context: Any) -> bytes:
        await self._cancelled[request].wait()
        return b"cancelled"

    # --- streams

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        context.set_trailing_metadata(TRAILING_METADATA)
        for number in range(int(request)):
            yield str(number).encode()

    async def count_and_write(self, request: bytes, context: Any) -> None:
        for number in range(int(request)):
            await context.write(str(number).encode())

    async def count_and_abort(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()
        await context.abort(grpc.StatusCode.NOT_FOUND, ABORT_DETAILS, ABORT_METADATA)

    async def answer_and_hold(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        cancelled = self._cancelled[request] = asyncio.Event()
        try:
            yield b"0"
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def gzip_one_of_two(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        yield request
        context.disable_next_message_compression()
        yield request

    async def join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def first_of(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Answer without reading the rest."""
        async for request in requests:
            return request
        return b"none"

    async def echo_all(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def read_and_write(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)

    async def abort_at_once(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "go away")
        yield b""

    def handlers(self) -> dict[str, Any]:
        kinds: dict[Any, tuple[str, ...]] = {
            grpc.unary_unary_rpc_method_handler: (
                *("echo", "in_thread", "metadata_in", "metadata_out", "has_deadline", "abort", "abort_as_told"),
                *("abort_after_metadata", "set_status", "set_details", "set_status_answer_none", "crash"),
                *("crash_after_code", "metadata_twice", "gzip", "deflate", "hold", "was_cancelled"),
            ),
            grpc.unary_stream_rpc_method_handler: (
                *("count", "count_and_write", "count_and_abort", "answer_and_hold", "crash_in_stream"),
                "gzip_one_of_two",
            ),
            grpc.stream_unary_rpc_method_handler: ("join", "first_of"),
            grpc.stream_stream_rpc_method_handler: ("echo_all", "read_and_write", "abort_at_once"),
        }
        return {name: kind(getattr(self, name)) for kind, names in kinds.items() for name in names}


def native_server() -> NativeServer:
    limits = ("keepalive_time_s", "keepalive_timeout_s", "max_connection_idle_s", "max_connection_age_s")
    forever = dict.fromkeys((*limits, "max_connection_age_grace_s"), 0.0)
    engine = create_engine(intra_op_threads=1)
    return NativeServer(NativeTransport(engine, io_threads=2, max_message_bytes=0, reuse_port=False, **forever))


async def main(directory: Path) -> None:
    unlimited = [("grpc.max_receive_message_length", -1)]
    servers: dict[str, Any] = {"aio": grpc.aio.server(options=unlimited), "native": native_server()}
    targets = {}
    for name, server in servers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, Servicer().handlers()),))
        socket = f"unix:{directory}/{name}.socket"
        targets[name] = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", socket]
        server.add_insecure_port(socket)
        await server.start()
    print(json.dumps(targets), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers.values():
        await server.stop(None)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(Path(sys.argv[1])))
