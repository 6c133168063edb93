# SPDX-License-Identifier: Apache-2.0
"""What takes requests from the network and hands them to the engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gristmill.frontend.aio import AioFrontend
from gristmill.frontend.native import NativeFrontend
from gristmill.options import Frontend, ServerOptions

if TYPE_CHECKING:
    from gristmill._core import Engine


def create_frontend(options: ServerOptions, engine: Engine) -> AioFrontend | NativeFrontend:
    """The front end that `options` ask for, in the running loop, without ports as yet."""
    from gristmill import _core

    if options.frontend is Frontend.AIO:
        return AioFrontend(_core.AioBridge(engine), options)
    transport = _core.NativeTransport(
        engine,
        io_threads=options.io_threads or max((os.cpu_count() or 1) // 2, 1),
        max_message_bytes=max(options.max_message_bytes, 0),
        reuse_port=options.reuse_port,
        keepalive_time_s=options.keepalive_time_s,
        keepalive_timeout_s=options.keepalive_timeout_s,
        max_connection_idle_s=options.max_connection_idle_s,
        max_connection_age_s=options.max_connection_age_s,
        max_connection_age_grace_s=options.max_connection_age_grace_s,
    )
    return NativeFrontend(transport)
