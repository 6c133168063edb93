# SPDX-License-Identifier: Apache-2.0
"""What takes requests from the network and hands them to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gristmill.frontend.aio import AioFrontend
from gristmill.frontend.native import NativeFrontend
from gristmill.machine import cores, memory_bytes
from gristmill.options import Frontend, ServerOptions

if TYPE_CHECKING:
    from gristmill._core import Engine


@dataclass(frozen=True)
class BufferLimits:
    """How what a server may buffer is divided."""

    received_bytes: int
    answer_bytes: int
    connection_bytes: int

    @classmethod
    def of(cls, options: ServerOptions) -> BufferLimits:
        """Half for requests, half for answers; one connection may not take more than a quarter of either."""
        half = max((options.max_buffered_bytes or memory_bytes() // 2) // 2, 4)  # of which a quarter is still a limit
        return cls(half, half, half // 4)


def create_frontend(options: ServerOptions, engine: Engine) -> AioFrontend | NativeFrontend:
    """The front end that `options` ask for, in the running loop, without ports as yet."""
    from gristmill import _core

    if options.frontend is Frontend.AIO:
        return AioFrontend(_core.AioBridge(engine), options)
    limits = BufferLimits.of(options)
    transport = _core.NativeTransport(
        engine,
        io_threads=options.io_threads or max(cores() // 2, 1),
        max_message_bytes=max(options.max_message_bytes, 0),
        max_received_bytes=limits.received_bytes,
        max_connection_bytes=limits.connection_bytes,
        response_encoding=options.response_compression.algorithm,
        reuse_port=options.reuse_port,
        keepalive_time_s=options.keepalive_time_s,
        keepalive_timeout_s=options.keepalive_timeout_s,
        max_connection_idle_s=options.max_connection_idle_s,
        max_connection_age_s=options.max_connection_age_s,
        max_connection_age_grace_s=options.max_connection_age_grace_s,
    )
    return NativeFrontend(transport)
