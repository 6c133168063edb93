# SPDX-License-Identifier: Apache-2.0
"""calls.proto for grpcio: `client.py sync` and, for its asyncio interface, `client.py aio`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

METHODS = {
    "unary": "unary_unary",
    "client_stream": "stream_unary",
    "server_stream": "unary_stream",
    "bidi": "stream_stream",
}
ALGORITHMS = {"none": None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
OPTIONS = [("grpc.max_receive_message_length", -1)]


def arguments(call: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The request or requests, and the options."""
    messages = [base64.b64decode(message) for message in call["messages"]]
    metadata = []
    for entry in call["metadata"]:
        value = base64.b64decode(entry["value"])
        metadata.append((entry["name"], value if entry["name"].endswith("-bin") else value.decode("ascii")))
    requests = iter(messages) if call["kind"] in {"client_stream", "bidi"} else messages[0]
    return requests, {
        "metadata": metadata,
        "timeout": call["timeout_s"],
        "compression": ALGORITHMS[call["compression"]],
    }


def entries(metadata: Any) -> list[dict[str, str]]:
    return [
        {"name": name, "value": base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()}
        for name, value in metadata or ()
    ]


def outcome(code: grpc.StatusCode, details: str, initial: Any, trailing: Any, responses: list[bytes]) -> dict[str, Any]:
    return {
        "code": code.value[0],
        "details": details or "",
        "initial_metadata": entries(initial),
        "trailing_metadata": entries(trailing),
        "responses": [base64.b64encode(response).decode() for response in responses],
    }


def make(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    method: Any = getattr(channel, METHODS[call["kind"]])(call["path"])
    requests, options = arguments(call)
    answers_once = call["kind"] in {"unary", "client_stream"}
    ongoing = method.future(requests, **options) if answers_once else method(requests, **options)
    timer = threading.Timer(call["cancel_after_s"], ongoing.cancel)
    if call["cancel_after_s"]:
        timer.start()
    if call["cancel_on"] == "metadata":
        ongoing.initial_metadata()
        ongoing.cancel()
    responses = []

    def receive(answers: Iterable[bytes]) -> None:
        for answer in answers:
            responses.append(answer)
            if call["cancel_on"] == "response":
                ongoing.cancel()

    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):  # of which the outcome tells
        receive([ongoing.result()] if answers_once else ongoing)
    timer.cancel()
    return outcome(
        ongoing.code(), ongoing.details(), ongoing.initial_metadata(), ongoing.trailing_metadata(), responses
    )


async def make_aio(channel: grpc.aio.Channel, call: dict[str, Any]) -> dict[str, Any]:
    method: Any = getattr(channel, METHODS[call["kind"]])(call["path"])
    requests, options = arguments(call)
    ongoing = method(requests, **options)
    loop = asyncio.get_running_loop()
    timer = loop.call_later(call["cancel_after_s"], ongoing.cancel) if call["cancel_after_s"] else None
    responses = []
    try:
        if call["cancel_on"] == "metadata":
            await ongoing.initial_metadata()
            ongoing.cancel()
        if call["kind"] in {"unary", "client_stream"}:
            responses.append(await ongoing)
        else:
            async for response in ongoing:
                responses.append(response)
                if call["cancel_on"] == "response":
                    ongoing.cancel()
    except (grpc.RpcError, asyncio.CancelledError):
        pass  # the outcome tells
    if timer is not None:
        timer.cancel()
    return outcome(
        await ongoing.code(),
        await ongoing.details(),
        await ongoing.initial_metadata(),
        await ongoing.trailing_metadata(),
        responses,
    )


def run_sync(run: dict[str, Any]) -> list[dict[str, Any]]:
    calls = run["calls"]
    with (
        grpc.insecure_channel(run["target"], OPTIONS) as channel,
        ThreadPoolExecutor(len(calls) if run["at_once"] else 1) as pool,
    ):
        return list(pool.map(lambda call: make(channel, call), calls))


async def run_aio(run: dict[str, Any]) -> list[dict[str, Any]]:
    async with grpc.aio.insecure_channel(run["target"], OPTIONS) as channel:
        if run["at_once"]:
            return await asyncio.gather(*(make_aio(channel, call) for call in run["calls"]))
        return [await make_aio(channel, call) for call in run["calls"]]


RUNS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "sync": run_sync,
    "aio": lambda run: asyncio.run(run_aio(run)),
}

if __name__ == "__main__":
    json.dump({"outcomes": RUNS[sys.argv[1]](json.load(sys.stdin))}, sys.stdout)
