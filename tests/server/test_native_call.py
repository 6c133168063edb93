# SPDX-License-Identifier: Apache-2.0
"""Servicers that do what they should not: every call ends, and with a status that fits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode

from .both_servers import FRONTENDS, LIMIT_S, outcome, serving


class AbortedServicer:
    """Methods that go on after context.abort()."""

    async def answer(self, request: bytes, context: Any) -> bytes:
        await self._abort(context)
        return b"late"

    async def write(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"early"
        await self._abort(context)
        yield b"late"

    async def abort_again(self, request: bytes, context: Any) -> bytes:
        await self._abort(context)
        await context.abort(StatusCode.DATA_LOSS, "again")
        raise AssertionError

    async def set_status(self, request: bytes, context: Any) -> bytes:
        await self._abort(context)
        context.set_code(StatusCode.DATA_LOSS)
        context.set_details("late")
        return b"late"

    async def fail(self, request: bytes, context: Any) -> bytes:
        await self._abort(context)
        raise ValueError("late")

    async def wait(self, request: bytes, context: Any) -> bytes:
        await self._abort(context)
        await asyncio.Event().wait()
        raise AssertionError

    @staticmethod
    async def _abort(context: Any) -> None:
        with contextlib.suppress(grpc.aio.AbortError):
            await context.abort(StatusCode.NOT_FOUND, "gone")


@pytest.mark.parametrize("frontend", FRONTENDS)
async def test_the_first_abort_is_the_last_word(frontend: str) -> None:
    servicer = AbortedServicer()
    names = ("answer", "abort_again", "set_status", "fail", "wait")
    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in names}
    handlers["write"] = grpc.unary_stream_rpc_method_handler(servicer.write)
    async with serving(frontend, handlers) as channel:
        for name in names:
            assert await outcome(channel, name) == (StatusCode.NOT_FOUND, "gone", b""), name
        assert await outcome(channel, "write") == (StatusCode.NOT_FOUND, "gone", b"early")


class OddServicer:
    """Uses a value where it does not belong. On grpc.aio some of these calls never end."""

    def __init__(self, value: Any) -> None:
        self._value = value

    async def trailing_metadata(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(self._value)
        return request

    async def initial_metadata(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(self._value)
        return request

    async def abort_metadata(self, request: bytes, context: Any) -> bytes:
        await context.abort(StatusCode.UNKNOWN, "gone", self._value)
        raise AssertionError

    async def details(self, request: bytes, context: Any) -> bytes:
        context.set_details(self._value)
        return request

    async def answer(self, request: bytes, context: Any) -> Any:
        return self._value

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise self._value


async def odd_outcome(name: str, value: Any) -> tuple[StatusCode, str, bytes]:
    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(OddServicer(value), name))}
    async with serving("native", handlers) as channel:
        return await outcome(channel, name)


@pytest.mark.parametrize("name", ["trailing_metadata", "initial_metadata", "abort_metadata"])
@pytest.mark.parametrize(
    "entry",
    [
        ("number", 5),
        (b"bytes", "value"),
        ("Upper", "value"),
        ("two words", "value"),
        ("", "value"),
        (":status", "500"),
        ("umlaut", "größe"),
        ("line", "one\ntwo"),
        ("zero", b"\0"),
    ],
    ids=repr,
)
async def test_what_cannot_be_metadata_is_the_servicers_failure(name: str, entry: tuple[Any, Any]) -> None:
    code, details, answer = await odd_outcome(name, (entry,))
    assert (code, answer) == (StatusCode.UNKNOWN, b"")
    assert f"{entry[0]!r}: {entry[1]!r}" in details


async def test_details_are_text() -> None:
    assert await odd_outcome("details", None) == (StatusCode.OK, "", b"a")
    code, details, _ = await odd_outcome("details", ValueError("an error instead of its text"))
    assert (code, details) == (
        StatusCode.UNKNOWN,
        "Unexpected <class 'TypeError'>: expected details of type str, got ValueError",
    )


async def test_a_failure_may_hold_the_name_of_a_file_that_is_not_utf8() -> None:
    code, details, _ = await odd_outcome("fail", ValueError("no \udcff.onnx"))
    assert (code, details) == (StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: no ?.onnx")


@pytest.mark.parametrize("value", [None, "text", 5, bytearray(b"a")])
async def test_an_answer_is_bytes(value: Any) -> None:
    details = f"Unexpected <class 'TypeError'>: expected bytes, got {type(value).__name__}"
    assert await odd_outcome("answer", value) == (StatusCode.UNKNOWN, details, b"")


async def test_no_exception_passes_for_success() -> None:
    details = "Unexpected <class 'BaseException'>: no Exception"
    assert await odd_outcome("fail", BaseException("no Exception")) == (StatusCode.UNKNOWN, details, b"")


RESERVED = (
    *("content-length", "content-type", "te"),
    *("grpc-accept-encoding", "grpc-encoding", "grpc-message", "grpc-status"),
)


@pytest.mark.parametrize("frontend", FRONTENDS)
async def test_what_is_grpcs_own_is_left_out_of_a_servicers_metadata(frontend: str) -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        metadata = (*((name, "7") for name in RESERVED), ("kept", "8"))
        await context.send_initial_metadata(metadata)
        context.set_trailing_metadata(metadata)
        return request

    async with serving(frontend, {"answer": grpc.unary_unary_rpc_method_handler(answer)}) as channel:
        call: Any = channel.unary_unary("/t/answer")(b"a", timeout=LIMIT_S)
        assert await call == b"a"
        assert tuple(await call.initial_metadata()) == (("kept", "8"),)
        assert tuple(await call.trailing_metadata()) == (("kept", "8"),)


@pytest.mark.parametrize("frontend", FRONTENDS)
async def test_entries_of_metadata_have_a_key_and_a_value(frontend: str) -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return repr([entry.value for entry in context.invocation_metadata() if entry.key == "name"]).encode()

    async with serving(frontend, {"answer": grpc.unary_unary_rpc_method_handler(answer)}) as channel:
        call: Any = channel.unary_unary("/t/answer")
        assert await call(b"a", metadata=(("name", "1"), ("name", " 2 ")), timeout=LIMIT_S) == b"['1', ' 2 ']"


async def test_a_callback_that_raises_keeps_no_other_from_running() -> None:
    # On grpc.aio it does.
    called = asyncio.Event()

    def fail(context: Any) -> None:
        raise ValueError

    async def answer(request: bytes, context: Any) -> bytes:
        context.add_done_callback(fail)
        context.add_done_callback(lambda _: called.set())
        return request

    async with serving("native", {"answer": grpc.unary_unary_rpc_method_handler(answer)}) as channel:
        assert await outcome(channel, "answer") == (StatusCode.OK, "", b"a")
        await asyncio.wait_for(called.wait(), LIMIT_S)


@pytest.mark.parametrize("frontend", FRONTENDS)
async def test_who_writes_to_a_call_that_is_over_is_told(frontend: str) -> None:
    contexts = []

    async def answer(request: bytes, context: Any) -> bytes:
        contexts.append(context)
        return request

    async with serving(frontend, {"answer": grpc.unary_unary_rpc_method_handler(answer)}) as channel:
        assert await outcome(channel, "answer") == (StatusCode.OK, "", b"a")
        async with asyncio.timeout(LIMIT_S):
            while not contexts[0].done():  # noqa: ASYNC110 (the client may hear of the end first)
                await asyncio.sleep(0)
            with pytest.raises(grpc.aio.UsageError, match="RPC already finished"):
                await contexts[0].write(b"late")
