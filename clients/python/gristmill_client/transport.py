# SPDX-License-Identifier: Apache-2.0
"""What the synchronous and the asyncio client share about calls: deadlines, gRPC's arguments, and its errors."""

from __future__ import annotations

import math
import time
from typing import Protocol, TypedDict

import grpc

from gristmill_client.errors import GristmillError, InvalidArgument, error_of
from gristmill_client.flows import Call
from gristmill_client.options import ClientOptions


class CallArguments(TypedDict):
    """Keyword arguments of a call in both grpc and grpc.aio."""

    timeout: float | None
    metadata: tuple[tuple[str, str], ...]
    wait_for_ready: bool


class _Status(Protocol):
    """What grpc.RpcError and grpc.aio.AioRpcError have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...


class CallContext:
    """One use of a client's method: its calls share one deadline."""

    def __init__(self, url: str, options: ClientOptions, timeout: float | None) -> None:
        """timeout: seconds from now; None means the client's default, math.inf means no deadline.

        Raises InvalidArgument for a timeout that is not positive.
        """
        seconds = options.timeout if timeout is None else timeout
        if not seconds > 0:
            raise InvalidArgument(f"timeout must be a positive number of seconds (math.inf for none), got {timeout}")
        self._url = url
        self._options = options
        self._seconds = seconds
        self._deadline = math.inf if math.isinf(seconds) else time.monotonic() + seconds
        self._metadata = options.metadata()

    def arguments(self) -> CallArguments:
        """For the next call."""
        timeout = None if math.isinf(self._deadline) else max(self._deadline - time.monotonic(), 0.0)
        return {"timeout": timeout, "metadata": self._metadata, "wait_for_ready": self._options.wait_for_ready}

    def error(self, status: _Status, call: Call) -> GristmillError:
        """The typed error for what gRPC raised; says which server, and after how long a deadline passed."""
        method = call.path.rpartition("/")[2]
        message = status.details() or "no message"
        if status.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"{message} ({method} to {self._url}, timeout {self._seconds:g} s)"
        elif status.code() is grpc.StatusCode.UNAVAILABLE:
            message = f"{message} ({method} to {self._url})"
        return error_of(status.code(), message, call.model)
