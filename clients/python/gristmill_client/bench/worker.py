# SPDX-License-Identifier: Apache-2.0
"""One process of the load generator: keeps up its share of the load and reports a window at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc

from gristmill_client.bench.levels import Level, due_times
from gristmill_client.bench.windows import Window
from gristmill_client.flows import INFER_PATH
from gristmill_client.options import ClientOptions

#: Requests of an open loop that may be outstanding; those due beyond wait, and their waiting counts as latency.
MAX_OUTSTANDING = 8192

Send = Callable[[], Awaitable[None]]
Now = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class WorkerOptions:
    """What a process needs to know. `request` is one serialised ModelInferRequest."""

    url: str
    request: bytes
    level: Level
    window_s: float
    timeout_s: float
    seed: int


class Recorder:
    """Collects what happens until the next `take`."""

    def __init__(self, now: Now) -> None:
        """`now` gives seconds."""
        self._now = now
        self._began = now()
        self._window = Window(0.0)

    def answered(self, due: float) -> None:
        """A request that was due at `due` has its answer."""
        self._window.latencies_s.append(self._now() - due)

    def failed(self, status: str) -> None:
        """A request has failed."""
        self._window.errors[status] += 1

    def take(self) -> Window:
        """The window that ends now; the next begins."""
        window, self._window = self._window, Window(0.0)
        now = self._now()
        window.duration_s, self._began = now - self._began, now
        return window


async def _call(send: Send, recorder: Recorder, due: float) -> None:
    try:
        await send()
    except grpc.aio.AioRpcError as error:
        recorder.failed(error.code().name)
    else:
        recorder.answered(due)


async def closed_loop(level: Level, send: Send, recorder: Recorder, now: Now) -> None:
    """`concurrency` callers that each call again as soon as they are answered. Runs until cancelled."""

    async def caller() -> None:
        while True:
            await _call(send, recorder, now())

    async with asyncio.TaskGroup() as callers:
        for _ in range(level.concurrency):
            callers.create_task(caller())


async def open_loop(level: Level, send: Send, recorder: Recorder, now: Now, sleep: Sleep, seed: int) -> None:
    """Requests at their due times, however many are still outstanding. Runs until cancelled.

    Latency counts from when a request was due, not from when it was sent, so that a stall of the server or of this
    process is charged to every request that it delayed.
    """
    began = now()
    free = asyncio.Semaphore(MAX_OUTSTANDING)

    async def call(due: float) -> None:
        try:
            await _call(send, recorder, due)
        finally:
            free.release()

    async with asyncio.TaskGroup() as calls:
        for offset in due_times(level, seed):
            due = began + offset
            if due > now():
                await sleep(due - now())
            await free.acquire()
            calls.create_task(call(due))


async def run_load(options: WorkerOptions, connection: Connection) -> None:
    """Keep up the load and send a Window through `connection` every `window_s`, until something is sent back."""
    async with grpc.aio.insecure_channel(options.url, ClientOptions(retry=None).channel_arguments()) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER_PATH)

        async def send() -> None:
            await method(options.request, timeout=options.timeout_s)

        now = time.perf_counter
        recorder = Recorder(now)
        load = (
            closed_loop(options.level, send, recorder, now)
            if options.level.concurrency
            else open_loop(options.level, send, recorder, now, asyncio.sleep, options.seed)
        )
        task = asyncio.create_task(load)
        try:
            while not connection.poll() and not task.done():
                await asyncio.sleep(options.window_s)
                connection.send(recorder.take())
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def main(options: WorkerOptions, connection: Connection) -> None:
    """The entry point of the process."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(run_load(options, connection))
    else:
        uvloop.run(run_load(options, connection))
