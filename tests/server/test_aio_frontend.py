# SPDX-License-Identifier: Apache-2.0
"""The grpc.aio front end over a real channel, on a bridge that the test answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
from gristmill.frontend.aio import InferHandler, bind, create_server
from gristmill.options import ServerOptions

from .fakes import LIMIT_S, FakeBridge


@dataclass
class Running:
    bridge: FakeBridge
    handler: InferHandler
    infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110 (the bridge has no event to wait for)
                await asyncio.sleep(0)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    bridge = FakeBridge()
    handler = InferHandler(bridge)
    server = create_server(ServerOptions([]))
    server.add_generic_rpc_handlers([handler.rpc_handler()])
    port = bind(server, "127.0.0.1:0")
    handler.open()
    await server.start()
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        yield Running(bridge, handler, channel.unary_unary("/inference.GRPCInferenceService/ModelInfer"))
    await server.stop(None)
    handler.close()
    bridge.close()


async def test_bytes_pass_through_untouched_and_answers_may_come_in_any_order(running: Running) -> None:
    first = asyncio.ensure_future(running.infer(b"\xff not protobuf 1"))
    await running.until(lambda: len(running.bridge.submitted) == 1)
    second = asyncio.ensure_future(running.infer(b"\xff not protobuf 2"))
    await running.until(lambda: len(running.bridge.submitted) == 2)
    assert [request for request, _, _ in running.bridge.submitted] == [b"\xff not protobuf 1", b"\xff not protobuf 2"]
    assert running.handler.calls == 2
    await running.until(lambda: running.bridge.flushed == 2)
    running.bridge.finish(1, 0, b"two")
    assert await second == b"two"
    running.bridge.finish(0, 0, b"")
    assert await first == b""
    await asyncio.wait_for(running.handler.wait_idle(), LIMIT_S)


async def test_large_messages_pass_both_ways(running: Running) -> None:
    large = bytes(10 << 20)
    call = asyncio.ensure_future(running.infer(large))
    await running.until(lambda: len(running.bridge.submitted) == 1)
    assert running.bridge.submitted[0][0] == large
    running.bridge.finish(0, 0, large)
    assert await call == large


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_errors_keep_their_code_and_message(running: Running, code: grpc.StatusCode) -> None:
    call = asyncio.ensure_future(running.infer(b""))
    await running.until(lambda: len(running.bridge.submitted) == 1)
    running.bridge.finish(0, code.value[0], "expected this, got that: größer")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert (error.value.code(), error.value.details()) == (code, "expected this, got that: größer")


async def test_deadline_reaches_the_bridge(running: Running) -> None:
    without = asyncio.ensure_future(running.infer(b""))
    await running.until(lambda: len(running.bridge.submitted) == 1)
    having = asyncio.ensure_future(running.infer(b"", timeout=LIMIT_S))
    await running.until(lambda: len(running.bridge.submitted) == 2)
    (_, _, none), (_, _, some) = running.bridge.submitted
    assert none is None
    assert some is not None
    assert 0 < some < 2 * LIMIT_S
    for ticket in (0, 1):
        running.bridge.finish(ticket, 0, b"")
    await asyncio.gather(without, having)


async def test_cancelled_call_is_cancelled_in_the_bridge_and_its_late_answer_dropped(running: Running) -> None:
    call = running.infer(b"")
    waiting = asyncio.ensure_future(call.wait_for_connection())
    await running.until(lambda: len(running.bridge.submitted) == 1)
    call.cancel()
    await running.until(lambda: running.bridge.cancelled == [0])
    waiting.cancel()
    assert running.handler.calls == 0
    running.bridge.finish(0, grpc.StatusCode.CANCELLED.value[0], "cancelled")
    after = asyncio.ensure_future(running.infer(b"after"))
    await running.until(lambda: len(running.bridge.submitted) == 2)
    running.bridge.finish(1, 0, b"alive")
    assert await after == b"alive"


async def test_port_in_use_is_an_error_that_names_it(running: Running) -> None:
    first = create_server(ServerOptions([]))
    port = bind(first, "127.0.0.1:0")
    await first.start()
    second = create_server(ServerOptions([]))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"):
        bind(second, f"127.0.0.1:{port}")
    await first.stop(None)
