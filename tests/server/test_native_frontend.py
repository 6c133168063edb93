# SPDX-License-Identifier: Apache-2.0
"""NativeServer beside grpc.aio.Server: the same servicers, called by grpc's own clients, answer alike on both."""

from __future__ import annotations

import ast
import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from gristmill.core import create_engine
from gristmill.frontend.native import NativeServer
from gristmill.frontend.native_call import EventKind
from gristmill.frontend.tls import ServerTls
from gristmill.options import TlsFiles

LIMIT_S = 20.0

#: What both servers say of a client with a certificate.
_KNOWN = ("transport_security_type", "x509_common_name", "x509_subject_alternative_name", "x509_pem_cert")


class Servicer:
    """Every kind of method, and everything a context can do. Messages are plain bytes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.cancelled = asyncio.Event()
        self.held = asyncio.Event()

    async def echo(self, request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda _: self.done.append("echo"))
        return request

    def in_thread(self, request: bytes, context: Any) -> bytes:
        return request + b" in a thread"

    async def describe(self, request: bytes, context: Any) -> bytes:
        metadata = {key: value for key, value in context.invocation_metadata() if key in {"name", "raw-bin"}}
        remaining = context.time_remaining()
        limited = remaining is not None and 0 < remaining < LIMIT_S + 1  # clients round up
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xfe")))
        return repr((metadata, limited, context.peer().split(":")[0], context.cancelled())).encode()

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no größe, 100 %\n", (("why", "gone"),))
        raise AssertionError

    async def set_status(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("set")
        return b"ignored"

    async def crash(self, request: bytes, context: Any) -> bytes:
        raise ValueError("crashed")

    async def crash_with_code(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS.value[0])
        raise ValueError("crashed")

    async def compress(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        yield request
        context.disable_next_message_compression()
        yield request

    async def compress_too_late(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(())
        context.set_compression(grpc.Compression.Gzip)
        return request

    async def who(self, request: bytes, context: Any) -> bytes:
        return repr((context.peer_identities(), context.peer_identity_key(), dict(context.auth_context()))).encode()

    async def hold(self, request: bytes, context: Any) -> bytes:
        self.held.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def write(self, request: bytes, context: Any) -> None:
        for number in range(int(request)):
            await context.write(bytes(100_000) + str(number).encode())

    async def join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def upper(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    async def read(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request[::-1])

    def handlers(self) -> dict[str, Any]:
        unary: Callable[[Any], Any] = grpc.unary_unary_rpc_method_handler
        return {
            **{
                name: unary(getattr(self, name))
                for name in (
                    *("echo", "in_thread", "describe", "abort", "set_status", "crash", "hold"),
                    *("crash_with_code", "compress_too_late", "who"),
                )
            },
            "compress": grpc.unary_stream_rpc_method_handler(self.compress),
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "write": grpc.unary_stream_rpc_method_handler(self.write),
            "join": grpc.stream_unary_rpc_method_handler(self.join),
            "upper": grpc.stream_stream_rpc_method_handler(self.upper),
            "read": grpc.stream_stream_rpc_method_handler(self.read),
        }


class Tag(grpc.aio.ServerInterceptor):
    """Refuses calls with metadata `refuse`, and remembers the others."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if ("refuse", "yes") in tuple(handler_call_details.invocation_metadata):

            async def refuse(_: bytes, context: Any) -> bytes:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "refused")
                raise AssertionError

            return grpc.unary_unary_rpc_method_handler(refuse)
        self.methods.append(handler_call_details.method)
        return await continuation(handler_call_details)


class Running:
    def __init__(self, server: Any, servicer: Servicer, tag: Tag, channel: grpc.aio.Channel, port: int) -> None:
        self.server = server
        self.port = port
        self.servicer = servicer
        self.tag = tag
        self.channel = channel

    def unary(self, name: str) -> Any:
        return self.channel.unary_unary(f"/t/{name}")


@pytest.fixture
def engine() -> Any:
    return create_engine(intra_op_threads=1)


@pytest.fixture(params=["aio", "native"])
async def running(request: pytest.FixtureRequest, engine: Any) -> AsyncIterator[Running]:
    tag = Tag()
    if request.param == "native":
        from gristmill._core import NativeTransport

        forever = dict.fromkeys(
            (
                *("keepalive_time_s", "keepalive_timeout_s", "max_connection_idle_s"),
                *("max_connection_age_s", "max_connection_age_grace_s"),
            ),
            0.0,
        )
        transport = NativeTransport(engine, io_threads=2, max_message_bytes=0, reuse_port=False, **forever)
        server: Any = NativeServer(transport, [tag])
    else:
        server = grpc.aio.server(interceptors=[tag])
    servicer = Servicer()
    # Both, as generated code does; grpc.aio looks at the generic ones alone.
    server.add_registered_method_handlers("t", servicer.handlers())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", servicer.handlers()),))
    generic = grpc.method_handlers_generic_handler("g", {"echo": grpc.unary_unary_rpc_method_handler(servicer.echo)})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(server, servicer, tag, channel, port)
    await server.stop(None)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def test_unary_calls(running: Running) -> None:
    assert await running.unary("echo")(b"hello") == b"hello"
    assert await running.unary("echo")(b"") == b""
    assert await running.unary("in_thread")(b"ran") == b"ran in a thread"
    assert await running.channel.unary_unary("/g/echo")(b"generic") == b"generic"
    answers = await asyncio.gather(*(running.unary("echo")(str(number).encode()) for number in range(300)))
    assert answers == [str(number).encode() for number in range(300)]


async def test_large_messages(running: Running) -> None:
    large = bytes(3_000_000)
    assert await running.unary("echo")(large) == large


async def test_metadata_both_ways(running: Running) -> None:
    call = running.unary("describe")(b"", metadata=(("name", "value"), ("raw-bin", b"\x00\x01\xff")), timeout=LIMIT_S)
    assert await call == repr(({"name": "value", "raw-bin": b"\x00\x01\xff"}, True, "ipv4", False)).encode()
    initial = dict(await call.initial_metadata())
    trailing = dict(await call.trailing_metadata())
    assert (initial["first"], initial["first-bin"]) == ("1", b"\x00\xff")
    assert (trailing["last"], trailing["last-bin"]) == ("2", b"\xfe")


async def test_statuses(running: Running) -> None:
    aborted = await failure(running.unary("abort")(b""))
    assert (aborted.code(), aborted.details()) == (grpc.StatusCode.NOT_FOUND, "no größe, 100 %\n")
    assert dict(aborted.trailing_metadata())["why"] == "gone"
    lost = await failure(running.unary("set_status")(b""))
    assert (lost.code(), lost.details()) == (grpc.StatusCode.DATA_LOSS, "set")
    crashed = await failure(running.unary("crash")(b""))
    assert (crashed.code(), crashed.details()) == (
        grpc.StatusCode.UNKNOWN,
        "Unexpected <class 'ValueError'>: crashed",
    )
    chosen = await failure(running.unary("crash_with_code")(b""))
    assert (chosen.code(), chosen.details()) == (grpc.StatusCode.DATA_LOSS, "Unexpected <class 'ValueError'>: crashed")
    unknown = await failure(running.unary("nothing")(b""))
    assert (unknown.code(), unknown.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert await running.unary("echo")(b"still served") == b"still served"


async def test_no_answer_comes_with_a_failure(running: Running) -> None:
    # A client of streams shows what one of single answers hides. grpc.aio sends an empty message.
    answers = running.channel.unary_stream("/t/set_status")(b"")
    with contextlib.suppress(grpc.aio.AioRpcError):
        assert await answers.read() == b""
    assert await answers.code() is grpc.StatusCode.DATA_LOSS


async def test_cancellation_reaches_the_servicer(running: Running) -> None:
    call = running.unary("hold")(b"")
    task = asyncio.ensure_future(call)
    await asyncio.wait_for(running.servicer.held.wait(), LIMIT_S)
    task.cancel()
    await asyncio.wait_for(running.servicer.cancelled.wait(), LIMIT_S)


async def test_a_deadline_ends_the_call_on_both_sides(running: Running) -> None:
    late = await failure(running.unary("hold")(b"", timeout=0.2))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.servicer.cancelled.wait(), LIMIT_S)


async def test_streams_of_answers(running: Running) -> None:
    count = running.channel.unary_stream("/t/count")
    assert [answer async for answer in count(b"5")] == [b"0", b"1", b"2", b"3", b"4"]
    assert [answer async for answer in count(b"0")] == []
    write = running.channel.unary_stream("/t/write")
    assert [answer.lstrip(b"\0") async for answer in write(b"50")] == [str(number).encode() for number in range(50)]


async def test_streams_of_requests(running: Running) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for number in range(100):
            yield str(number).encode()

    expected = ",".join(str(number) for number in range(100)).encode()
    assert await running.channel.stream_unary("/t/join")(requests()) == expected


async def test_streams_both_ways(running: Running) -> None:
    upper = running.channel.stream_stream("/t/upper")()
    for text in (b"one", b"two", b"three"):
        await upper.write(text)
        assert await upper.read() == text.upper()
    await upper.done_writing()
    assert await upper.read() is grpc.aio.EOF
    assert await upper.code() is grpc.StatusCode.OK
    read = running.channel.stream_stream("/t/read")()
    await read.write(b"abc")
    assert await read.read() == b"cba"
    await read.done_writing()
    assert await read.read() is grpc.aio.EOF


class CountingProxy:
    """Between a client and a server on `port`: how many bytes the server sends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.bytes_from_server = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, counts: bool) -> None:
            while data := await source.read(65536):
                self.bytes_from_server += len(data) * counts
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(
            pump(reader, server_writer, False), pump(server_reader, writer, True), return_exceptions=True
        )


async def test_servicers_choose_how_answers_are_compressed(running: Running) -> None:
    proxy = CountingProxy(running.port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    url = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, grpc.aio.insecure_channel(url) as channel:
        stream = channel.unary_stream("/t/compress")(bytes(100_000), timeout=LIMIT_S)
        assert await stream.read() == bytes(100_000)
        assert proxy.bytes_from_server < 150_000  # one of the two is not compressed
        assert await stream.read() == bytes(100_000)
        assert 100_000 < proxy.bytes_from_server < 110_000
        assert await channel.unary_unary("/t/echo")(bytes(100_000), timeout=LIMIT_S) == bytes(100_000)
        assert proxy.bytes_from_server > 200_000
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/t/compress_too_late")(b"", timeout=LIMIT_S)


async def test_without_tls_nobody_is_known(running: Running) -> None:
    assert (await running.channel.unary_unary("/t/who")(b"", timeout=LIMIT_S)).startswith(b"(None, None, ")


async def test_both_servers_know_a_client_by_its_certificate(engine: Any, tmp_path: Path) -> None:
    from gristmill._core import NativeTransport

    authority = trustme.CA()
    own, client = authority.issue_cert("localhost"), authority.issue_cert("alice.test", "bob.test", common_name="Alice")
    paths = [tmp_path / name for name in ("certificate", "key", "ca")]
    for path, blob in zip(paths, (own.cert_chain_pems[0], own.private_key_pem, authority.cert_pem), strict=True):
        path.write_bytes(blob.bytes())
    tls = ServerTls(TlsFiles(*paths))
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
    )
    forever = ("keepalive_time_s", "keepalive_timeout_s", "max_connection_idle_s", "max_connection_age_s")
    limits = dict.fromkeys((*forever, "max_connection_age_grace_s"), 0.0)
    transport = NativeTransport(engine, io_threads=1, max_message_bytes=0, reuse_port=False, **limits)
    servers: list[Any] = [NativeServer(transport), grpc.aio.server()]
    ports = [transport.listen("127.0.0.1:0", tls.context), servers[1].add_secure_port("127.0.0.1:0", tls.credentials())]
    known = []
    for server, port in zip(servers, ports, strict=True):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", Servicer().handlers()),))
        await server.start()
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            answer = await channel.unary_unary("/t/who")(b"", timeout=LIMIT_S)
        identities, key, auth = ast.literal_eval(answer.decode())
        known.append((list(identities), key, {name: auth[name] for name in _KNOWN}))
        await server.stop(None)
    assert known[0] == known[1]
    assert known[0][:2] == ([b"alice.test", b"bob.test"], "x509_subject_alternative_name")


async def test_interceptors_see_every_call(running: Running) -> None:
    assert await running.unary("echo")(b"x") == b"x"
    refused = await failure(running.unary("echo")(b"x", metadata=(("refuse", "yes"),)))
    assert (refused.code(), refused.details()) == (grpc.StatusCode.PERMISSION_DENIED, "refused")
    assert running.tag.methods == ["/t/echo"]


async def test_done_callbacks_run(running: Running) -> None:
    await running.unary("echo")(b"x")
    async with asyncio.timeout(LIMIT_S):
        while not running.servicer.done:  # noqa: ASYNC110 (a callback after the answer)
            await asyncio.sleep(0.01)
    assert running.servicer.done == ["echo"]


async def test_stop_lets_calls_finish_and_ends_those_that_do_not(running: Running) -> None:
    held = asyncio.ensure_future(running.unary("hold")(b""))
    await asyncio.wait_for(running.servicer.held.wait(), LIMIT_S)
    await asyncio.wait_for(running.server.stop(0.2), LIMIT_S)
    assert (await failure(held)).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await asyncio.wait_for(running.servicer.cancelled.wait(), LIMIT_S)
    assert not await running.server.wait_for_termination(LIMIT_S)


class SilentTransport:
    """Of one loop, without a network: tells what the test wants told."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, Any]] = []
        self.finished: list[tuple[int, int]] = []

    def take_events(self) -> list[tuple[int, int, Any]]:
        events, self.events = self.events, []
        return events

    def finish(self, call: int, code: int, details: str, trailing_metadata: Any) -> None:
        self.finished.append((call, code))

    def read_more(self, call: int) -> None:
        pass


async def test_a_call_that_is_cancelled_before_it_begins_is_finished_too() -> None:
    transport: Any = SilentTransport()
    server = NativeServer(transport)
    transport.events = [
        (EventKind.CALL, 7, ("/t/echo", (), "ipv4:1", None, {})),
        (EventKind.MESSAGE, 7, b""),
        (EventKind.CANCEL, 7, None),
        (EventKind.MESSAGE, 8, b"of a call that is over"),
    ]
    server._take_events()
    async with asyncio.timeout(LIMIT_S):
        while not transport.finished:  # noqa: ASYNC110 (two turns of the loop)
            await asyncio.sleep(0)
    assert transport.finished == [(7, grpc.StatusCode.CANCELLED.value[0])]
