# SPDX-License-Identifier: Apache-2.0
"""Methods without asyncio: they run in threads, and wait there for what the event loop does for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

if TYPE_CHECKING:
    from gristmill.frontend.native_call import Context, Handler

    Wait = Callable[[Coroutine[Any, Any, Any]], Any]

_END = object()


class ThreadContext:
    """A call as a method in a thread sees it: a Context of which nothing has to be awaited."""

    def __init__(self, context: Context, wait: Wait) -> None:
        """`wait` runs a coroutine in the loop of `context`."""
        self._context = context
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        """What does not wait is the same."""
        return getattr(self._context, name)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send it before any answer."""
        self._wait(self._context.send_initial_metadata(initial_metadata))

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Send a status and raise what ends the method."""
        self._wait(self._context.abort(code, details, trailing_metadata))
        raise AssertionError("abort() has returned")

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """As `abort`."""
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback` run when the call is over."""
        self._context.add_done_callback(lambda _: callback())


async def answer_in_thread(handler: Handler, method: Any, request: Any, context: Context) -> Any:
    """Run `method` of `handler`; what it yields is written, what it returns is returned.

    `request` is an asynchronous iterator if there may be many.
    """
    loop = asyncio.get_running_loop()

    def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def following() -> Any:
        return await anext(request, _END)

    def requests() -> Iterator[Any]:
        while (one := wait(following())) is not _END:
            yield one

    def run() -> Any:
        answered = method(requests() if handler.request_streaming else request, ThreadContext(context, wait))
        if not handler.response_streaming:
            return answered
        for response in answered:
            wait(context.write(response))
        return None

    return await asyncio.to_thread(run)
