# SPDX-License-Identifier: Apache-2.0
"""One servicer on grpc.aio.Server or on NativeServer, and a channel to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from gristmill.core import create_engine
from gristmill.frontend.native import NativeServer

FRONTENDS = ("aio", "native")

#: Generous: reached only when a test fails.
LIMIT_S = 20.0


@asynccontextmanager
async def serving(frontend: str, handlers: Mapping[str, Any]) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of `handlers` as service "t". A call that the server does not end fails the test."""
    server: Any = grpc.aio.server() if frontend == "aio" else _native_server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", dict(handlers)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await asyncio.wait_for(server.stop(None), LIMIT_S)


def _native_server() -> NativeServer:
    from gristmill._core import NativeTransport

    limits = ("keepalive_time_s", "keepalive_timeout_s", "max_connection_idle_s", "max_connection_age_s")
    forever = dict.fromkeys((*limits, "max_connection_age_grace_s"), 0.0)
    engine = create_engine(intra_op_threads=1)
    return NativeServer(NativeTransport(engine, io_threads=1, max_message_bytes=0, reuse_port=False, **forever))


async def outcome(channel: grpc.aio.Channel, name: str, request: bytes = b"a") -> tuple[grpc.StatusCode, str, bytes]:
    """Of a call of a method with one request: its status and all that it answered, also what a failure would hide."""
    call: Any = channel.unary_stream(f"/t/{name}")(request, timeout=LIMIT_S)
    answers = []
    try:
        async for answer in call:
            answers.append(answer)
    except grpc.aio.AioRpcError:
        pass  # the status tells
    return await call.code(), await call.details(), b",".join(answers)
