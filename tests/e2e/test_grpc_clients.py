# SPDX-License-Identifier: Apache-2.0
"""Independent gRPC clients cannot tell NativeServer from grpc.aio.Server.

Every client makes every call of one table to both. The servicer is in grpc_clients/echo_servers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from .grpc_clients import echo_servers
from .grpc_clients.calls import LIMIT_S, Call, Case, GrpcClient, Outcome, metadata_of, outcomes_of

INITIAL = metadata_of(echo_servers.INITIAL_METADATA)
TRAILING = metadata_of(echo_servers.TRAILING_METADATA)
ABORTED = Outcome(StatusCode.NOT_FOUND, echo_servers.ABORT_DETAILS, trailing=metadata_of(echo_servers.ABORT_METADATA))
LARGE = bytes(range(256)) * (4 << 12)  # 4 MiB
COMPRESSIBLE = LARGE[: 1 << 18]
MANY = [str(number).encode() for number in range(1000)]
METADATA_IN = (
    ("x-text", "one"),
    ("x-text", "two"),
    ("x-empty", ""),
    ("x-long", "y" * 2000),
    ("x-marks", "!#$%&'()*+-./:;<=>?@"),
    ("x-raw-bin", b"\x00\x01\xff"),
    ("x-raw-bin", b","),
    ("x-one-bin", b"\xfb"),
    ("x-empty-bin", b""),
)


def path(name: str) -> str:
    return f"/{echo_servers.SERVICE}/{name}"


def ok(*responses: bytes) -> Outcome:
    return Outcome(StatusCode.OK, responses=responses)


def unary(name: str, expected: Outcome, request: bytes = b"hello", **options: object) -> Case:
    return Case(name, Call(path(name), messages=[request], **options), expected)  # type: ignore[arg-type]


def counted(count: int) -> list[bytes]:
    return MANY[:count]


def streams(name: str, kind: str, messages: list[bytes], expected: Outcome, title: str = "") -> Case:
    return Case(title or name, Call(path(name), kind, messages), expected)


# The asyncio client may find that it can send no more before it finds why.
EARLY = ("grpcio-asyncio",)

CASES = [
    unary("echo", ok(b"hello")),
    Case("an empty message", Call(path("echo")), ok(b"")),
    Case("4 MiB", Call(path("echo"), messages=[LARGE]), ok(LARGE)),
    Case("a request in gzip", Call(path("echo"), messages=[COMPRESSIBLE], compression="gzip"), ok(COMPRESSIBLE)),
    Case("a request in deflate", Call(path("echo"), messages=[COMPRESSIBLE], compression="deflate"), ok(COMPRESSIBLE)),
    Case("gzip that does not pay", Call(path("echo"), messages=[b"a"], compression="gzip"), ok(b"a")),
    Case("gzip of nothing", Call(path("echo"), messages=[b""], compression="gzip"), ok(b"")),
    unary("in_thread", ok(b"hello")),
    unary("metadata_in", ok(echo_servers.metadata_json(METADATA_IN)), metadata=METADATA_IN),
    unary("metadata_out", Outcome(StatusCode.OK, "", [b"hello"], INITIAL, TRAILING)),
    unary("has_deadline", ok(b"yes"), str(LIMIT_S).encode()),
    unary("abort", ABORTED),
    *(
        Case(
            f"abort with {code.name}",
            Call(path("abort_as_told"), messages=[f"{code.value[0]} because".encode()]),
            Outcome(code, "because"),
        )
        for code in StatusCode
        if code is not StatusCode.OK
    ),
    Case("abort in silence", Call(path("abort_as_told"), messages=[b"5 "]), Outcome(StatusCode.NOT_FOUND)),
    unary("abort_after_metadata", Outcome(StatusCode.ABORTED, "late", initial=INITIAL, trailing=TRAILING)),
    unary("set_status", Outcome(StatusCode.DATA_LOSS, "größer", trailing=TRAILING)),
    unary("set_status_answer_none", Outcome(StatusCode.OUT_OF_RANGE, "nothing")),
    # Some clients show the details of an OK and some do not.
    Case("set_details", Call(path("set_details"), messages=[b"a"]), ok(b"a"), text_is_ours=False),
    unary(
        "crash",
        Outcome(
            StatusCode.UNKNOWN,
            "Unexpected <class 'ValueError'>: größe %\n",
            trailing={"last": [b"words"]},
        ),
    ),
    unary("crash_after_code", Outcome(StatusCode.FAILED_PRECONDITION, "Unexpected <class 'ValueError'>: crashed")),
    unary(
        "metadata_twice",
        Outcome(
            StatusCode.UNKNOWN,
            "Unexpected <class 'grpc._cython.cygrpc.UsageError'>: Send initial metadata failed: already sent",
            initial=INITIAL,
        ),
    ),
    unary("gzip", ok(COMPRESSIBLE), COMPRESSIBLE),
    unary("deflate", ok(COMPRESSIBLE), COMPRESSIBLE),
    Case("gzip both ways", Call(path("gzip"), messages=[COMPRESSIBLE], compression="gzip"), ok(COMPRESSIBLE)),
    unary("nothing", Outcome(StatusCode.UNIMPLEMENTED, "Method not found!")),
    Case("no service", Call("/nobody/echo"), Outcome(StatusCode.UNIMPLEMENTED, "Method not found!")),
    # --- streams
    streams("count", "server_stream", [b"3"], Outcome(StatusCode.OK, "", counted(3), trailing=TRAILING)),
    streams("count", "server_stream", [b"0"], Outcome(StatusCode.OK, trailing=TRAILING), "an empty stream"),
    streams("count", "server_stream", [b"1000"], Outcome(StatusCode.OK, "", MANY, trailing=TRAILING), "1,000 answers"),
    streams("count_and_write", "server_stream", [b"5"], ok(*counted(5))),
    streams(
        "count_and_abort",
        "server_stream",
        [b"3"],
        Outcome(ABORTED.code, ABORTED.details, counted(3), trailing=ABORTED.trailing),
    ),
    streams(
        "count_and_abort", "server_stream", [b"0"], ABORTED, "a stream that is aborted before anything is answered"
    ),
    streams(
        "crash_in_stream",
        "server_stream",
        [b"a"],
        Outcome(StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: crashed", [b"a"]),
    ),
    streams("gzip_one_of_two", "server_stream", [COMPRESSIBLE], ok(COMPRESSIBLE, COMPRESSIBLE)),
    streams("join", "client_stream", MANY, ok(b",".join(MANY)), "1,000 requests"),
    streams("join", "client_stream", [], ok(b""), "no request"),
    Case("first_of", Call(path("first_of"), "client_stream", counted(5)), ok(b"0"), not_by=EARLY),
    streams("first_of", "client_stream", [], ok(b"none"), "half-close without a message"),
    streams("echo_all", "bidi", MANY, ok(*MANY)),
    streams("echo_all", "bidi", [LARGE, b"", b"a"], ok(LARGE, b"", b"a"), "large and empty both ways"),
    streams("echo_all", "bidi", [], ok(), "nothing both ways"),
    Case(
        "deflate both ways",
        Call(path("echo_all"), "bidi", [COMPRESSIBLE, b"a"], compression="deflate"),
        ok(COMPRESSIBLE, b"a"),
    ),
    streams("read_and_write", "bidi", MANY, ok(*MANY)),
    streams("abort_at_once", "bidi", [], Outcome(StatusCode.PERMISSION_DENIED, "go away")),
    Case(
        "abort_at_once with requests under way",
        Call(path("abort_at_once"), "bidi", MANY),
        Outcome(StatusCode.PERMISSION_DENIED, "go away"),
        not_by=EARLY,
    ),
    # --- ended by the client, whose own text then tells
    Case(
        "a deadline",
        Call(path("hold"), messages=[b"late"], timeout_s=0.2),
        Outcome(StatusCode.DEADLINE_EXCEEDED),
        text_is_ours=False,
    ),
    Case(
        "cancellation",
        Call(path("hold"), messages=[b"unary"], cancel_after_s=0.1),
        Outcome(StatusCode.CANCELLED),
        text_is_ours=False,
    ),
    # As a stream: the synchronous client shows the metadata of single answers too late.
    Case(
        "cancellation after metadata",
        Call(path("hold"), "server_stream", [b"metadata"], cancel_on="metadata"),
        Outcome(StatusCode.CANCELLED),
        text_is_ours=False,
    ),
    Case("the servicer's end", Call(path("was_cancelled"), messages=[b"metadata"]), ok(b"cancelled")),
    Case(
        "cancellation after an answer",
        Call(path("answer_and_hold"), "server_stream", [b"answer"], cancel_on="response"),
        Outcome(StatusCode.CANCELLED, responses=[b"0"]),
        text_is_ours=False,
    ),
    Case("the stream's end", Call(path("was_cancelled"), messages=[b"answer"]), ok(b"cancelled")),
]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """Front end -> a port and a unix socket."""
    command = [sys.executable, echo_servers.__file__, str(tmp_path_factory.mktemp("sockets"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


@pytest.fixture(scope="module")
def outcomes(grpc_client: GrpcClient, targets: dict[str, list[str]]) -> dict[str, dict[str, Outcome]]:
    return outcomes_of(grpc_client, {name: port for name, (port, _) in targets.items()}, CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call(case: Case, grpc_client: GrpcClient, outcomes: dict[str, dict[str, Outcome]]) -> None:
    if grpc_client.name in case.not_by:
        assert case.name not in outcomes
        return
    case.check(**outcomes[case.name])


def test_calls_at_once_get_their_own_answers(grpc_client: GrpcClient, targets: dict[str, list[str]]) -> None:
    calls, expected = [], []
    for number in range(60):
        name = str(number).encode()
        metadata = (("x-number", str(number)), ("x-number-bin", name))
        calls += [
            Call(path("echo"), messages=[name * number * 40]),
            Call(path("metadata_in"), metadata=metadata),
            Call(path("echo_all"), "bidi", [name, LARGE[: number * 1000], name]),
            Call(path("abort_as_told"), messages=[b"9 " + name]),
        ]
        expected += [
            ok(name * number * 40),
            ok(echo_servers.metadata_json(metadata)),
            ok(name, LARGE[: number * 1000], name),
            Outcome(StatusCode.FAILED_PRECONDITION, str(number)),
        ]
    for port, _ in targets.values():
        for outcome, right in zip(grpc_client.make(port, calls, at_once=True), expected, strict=True):
            assert (outcome.code, outcome.details, list(outcome.responses)) == (
                right.code,
                right.details,
                list(right.responses),
            )


def test_a_unix_socket(grpc_client: GrpcClient, targets: dict[str, list[str]]) -> None:
    by_name = {case.name: case for case in CASES}
    cases = [by_name[name] for name in ("4 MiB", "metadata_in", "metadata_out", "abort", "echo_all", "count_and_abort")]
    outcomes = outcomes_of(grpc_client, {name: socket for name, (_, socket) in targets.items()}, cases)
    for case in cases:
        case.check(**outcomes[case.name])


def test_where_the_native_server_does_better(grpc_client: GrpcClient, targets: dict[str, list[str]]) -> None:
    """grpc.aio never answers the first two calls, and grpc-js takes no details that end in a blank from it."""
    calls = [
        Call(path("echo"), "client_stream", []),
        *(Call(path("abort_as_told"), messages=[told]) for told in (b"0 fine", b"5  blanks ")),
    ]
    without_message, with_ok, with_blanks = grpc_client.make(targets["native"][0], calls)
    assert without_message == Outcome(StatusCode.INTERNAL, "expected one request message, got none", [])
    assert with_ok.code is StatusCode.UNKNOWN
    assert with_ok.details.endswith("Abort with OK status code is not allowed")
    assert with_blanks == Outcome(StatusCode.NOT_FOUND, " blanks ", [])
