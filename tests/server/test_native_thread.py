# SPDX-License-Identifier: Apache-2.0
"""Servicers without asyncio, as generated code and grpc.aio allow them, on both servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode

from .both_servers import FRONTENDS, LIMIT_S, outcome, serving


class Servicer:
    """Messages are plain bytes."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def metadata(self, request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        return request

    def abort(self, request: bytes, context: Any) -> bytes:
        context.add_callback(self.ended.set)
        context.abort(StatusCode.NOT_FOUND, "gone", (("why", "so"),))
        return b"late"

    def fail(self, request: bytes, context: Any) -> bytes:
        raise ValueError("crashed")

    def count(self, request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield f"{number} {threading.current_thread() is threading.main_thread()}".encode()

    def join(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b",".join(requests)

    def upper(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def abort_late(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield request
        context.abort(StatusCode.NOT_FOUND, "gone")

    def wait(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            yield from requests
        finally:
            self.ended.set()

    def handlers(self) -> dict[str, Any]:
        kinds: dict[Any, tuple[str, ...]] = {
            grpc.unary_unary_rpc_method_handler: ("metadata", "abort", "fail"),
            grpc.unary_stream_rpc_method_handler: ("count", "abort_late"),
            grpc.stream_unary_rpc_method_handler: ("join",),
            grpc.stream_stream_rpc_method_handler: ("upper", "wait"),
        }
        return {name: kind(getattr(self, name)) for kind, names in kinds.items() for name in names}


@pytest.fixture(params=FRONTENDS)
def frontend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_metadata_goes_both_ways(frontend: str) -> None:
    async with serving(frontend, Servicer().handlers()) as channel:
        call: Any = channel.unary_unary("/t/metadata")(b"a", timeout=LIMIT_S)
        assert await call == b"a"
        assert tuple(await call.initial_metadata()) == (("first", "1"),)
        assert tuple(await call.trailing_metadata()) == (("last", "2"),)


async def test_abort_ends_the_call(frontend: str) -> None:
    servicer = Servicer()
    async with serving(frontend, servicer.handlers()) as channel:
        call: Any = channel.unary_unary("/t/abort")(b"a", timeout=LIMIT_S)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert (await call.code(), await call.details()) == (StatusCode.NOT_FOUND, "gone")
        assert tuple(await call.trailing_metadata()) == (("why", "so"),)
        assert await asyncio.to_thread(servicer.ended.wait, LIMIT_S)


async def test_a_failure_is_told(frontend: str) -> None:
    async with serving(frontend, Servicer().handlers()) as channel:
        details = "Unexpected <class 'ValueError'>: crashed"
        assert await outcome(channel, "fail") == (StatusCode.UNKNOWN, details, b"")


async def test_streams_do_not_hold_up_the_loop(frontend: str) -> None:
    async with serving(frontend, Servicer().handlers()) as channel:
        assert await outcome(channel, "count", b"3") == (StatusCode.OK, "", b"0 False,1 False,2 False")
        join: Any = channel.stream_unary("/t/join")
        assert await join(iter([b"a", b"b", b"c"]), timeout=LIMIT_S) == b"a,b,c"
        assert await join(iter([]), timeout=LIMIT_S) == b""
        upper: Any = channel.stream_stream("/t/upper")(timeout=LIMIT_S)
        for text in (b"one", b"two"):
            await upper.write(text)
            assert await upper.read() == text.upper()
        await upper.done_writing()
        assert await upper.read() is grpc.aio.EOF


async def test_abort_ends_a_stream() -> None:
    # Of grpc.aio the client may hear nothing more.
    async with serving("native", Servicer().handlers()) as channel:
        assert await outcome(channel, "abort_late") == (StatusCode.NOT_FOUND, "gone", b"a")


async def test_a_client_that_goes_ends_a_thread_that_waits_for_it() -> None:
    servicer = Servicer()
    async with serving("native", servicer.handlers()) as channel:
        call: Any = channel.stream_stream("/t/wait")(timeout=LIMIT_S)
        await call.write(b"a")
        assert await call.read() == b"a"
        call.cancel()
        assert await asyncio.to_thread(servicer.ended.wait, LIMIT_S)
