# SPDX-License-Identifier: Apache-2.0
"""Calls that every gRPC client makes in the same way, what comes of them, and the clients themselves.

A client is a program that speaks calls.proto: it is told what to call and tells what came.
"""

from __future__ import annotations

import base64
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from grpc import StatusCode

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[2] / "build" / "grpc_clients"

#: Of every call that sets no deadline of its own: only decides how long a failure takes.
LIMIT_S = 30.0

#: gRPC's own, which some clients show and some do not.
_VOLATILE = {
    "accept-encoding",
    "content-type",
    "date",
    "grpc-accept-encoding",
    "grpc-encoding",
    "user-agent",
}

_CODES = {code.value[0]: code for code in StatusCode}

# Name -> values; those of names that end in "-bin" are the bytes.
Metadata = dict[str, list[bytes]]
Entries = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Call:
    """As in calls.proto."""

    path: str
    kind: str = "unary"
    messages: Sequence[bytes] = (b"",)
    metadata: Sequence[tuple[str, str | bytes]] = ()
    timeout_s: float = LIMIT_S
    compression: str = "none"
    cancel_on: str = ""
    cancel_after_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of a call."""

    code: StatusCode
    details: str = ""
    responses: Sequence[bytes] = ()
    initial: Metadata = field(default_factory=dict)
    trailing: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A call that both front ends must answer alike, and how.

    `text_is_ours`: false where gRPC core or the client writes the details, and then the codes alone are compared.
    `not_by`: names of the clients that do not show what came.
    """

    name: str
    call: Call
    expected: Outcome
    text_is_ours: bool = True
    not_by: Collection[str] = ()

    def check(self, aio: Outcome, native: Outcome) -> None:
        """Both are as expected, and no different from each other."""
        assert aio.code is native.code is self.expected.code, (aio, native)
        if self.text_is_ours:
            assert native == aio
            assert native.details == self.expected.details
            assert joined(native.initial) == joined(self.expected.initial)
            assert joined(native.trailing) == joined(self.expected.trailing)
        assert list(aio.responses) == list(native.responses) == list(self.expected.responses)


def metadata_of(entries: Entries) -> Metadata:
    """Without what is gRPC's own."""
    metadata: Metadata = {}
    for name, value in entries:
        if name not in _VOLATILE:
            metadata.setdefault(name, []).append(value.encode() if isinstance(value, str) else value)
    return metadata


def joined(metadata: Metadata) -> Metadata:
    """As HTTP/2 libraries may join values of one name, node's does; binary values are told apart all the same."""
    return {
        name: values if name.endswith("-bin") else [b", ".join(values)] for name, values in metadata.items() if values
    }


@dataclass(frozen=True)
class GrpcClient:
    """One gRPC implementation, as a program."""

    name: str
    command: tuple[str, ...]

    def make(self, target: str, calls: Sequence[Call], at_once: bool = False) -> list[Outcome]:
        """Make calls on one channel, one after another or `at_once`."""
        run = {"target": target, "at_once": at_once, "calls": [_call_json(call) for call in calls]}
        done = subprocess.run(
            self.command,
            input=json.dumps(run),
            stdout=subprocess.PIPE,
            text=True,
            timeout=2 * LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{self.name} exited with {done.returncode}"
        outcomes = [_outcome(said) for said in json.loads(done.stdout)["outcomes"]]
        assert len(outcomes) == len(calls)
        return outcomes


def outcomes_of(client: GrpcClient, targets: Mapping[str, str], cases: Sequence[Case]) -> dict[str, dict[str, Outcome]]:
    """Case -> front end -> outcome, of all calls that `client` can make."""
    made = [case for case in cases if client.name not in case.not_by]
    outcomes: dict[str, dict[str, Outcome]] = {case.name: {} for case in made}
    assert len(outcomes) == len(made), "two cases of one name"
    calls = [case.call for case in made]
    with ThreadPoolExecutor() as pool:
        of_each = list(pool.map(lambda target: client.make(target, calls), targets.values()))
    for frontend, came in zip(targets, of_each, strict=True):
        for case, outcome in zip(made, came, strict=True):
            outcomes[case.name][frontend] = outcome
    return outcomes


def grpcio() -> GrpcClient:
    """Python's, on gRPC core."""
    return GrpcClient("grpcio", (sys.executable, str(HERE / "python" / "client.py"), "sync"))


def grpcio_asyncio() -> GrpcClient:
    """Python's interface for asyncio, on gRPC core."""
    return GrpcClient("grpcio-asyncio", (sys.executable, str(HERE / "python" / "client.py"), "aio"))


@functools.cache
def grpc_cpp() -> GrpcClient:
    """C++, on the distribution's older gRPC core; compiled here, through ccache."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "client"
    flags = _output_of("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
    _output_of("protoc", f"-I{HERE}", f"--cpp_out={BUILD}", str(HERE / "calls.proto"))
    objects = []
    for source in (HERE / "cpp" / "client.cc", BUILD / "calls.pb.cc"):
        objects.append(str(BUILD / f"{source.stem}.o"))
        compile_options = ("-std=c++20", "-Wall", "-Werror", f"-I{BUILD}")
        _output_of("ccache", "g++", *compile_options, "-c", str(source), "-o", objects[-1])
    _output_of("g++", *objects, "-o", str(program), *flags)
    return GrpcClient("grpc-c++", (str(program),))


def grpc_js() -> GrpcClient:
    """node's, without gRPC core."""
    return GrpcClient("grpc-js", ("node", str(HERE / "node" / "client.js")))


#: By what they are called in the names of tests.
CLIENTS: Mapping[str, Callable[[], GrpcClient]] = {
    "grpcio": grpcio,
    "grpcio-asyncio": grpcio_asyncio,
    "grpc-c++": grpc_cpp,
    "grpc-js": grpc_js,
}


def _output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S * 5, check=False)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stderr}"
    return done.stdout


def _text(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _call_json(call: Call) -> dict[str, object]:
    metadata = [{"name": name, "value": _text(value)} for name, value in call.metadata]
    return {**vars(call), "messages": [_text(message) for message in call.messages], "metadata": metadata}


def _outcome(said: Mapping[str, object]) -> Outcome:
    def entries(name: str) -> Metadata:
        return metadata_of((entry["name"], base64.b64decode(entry["value"])) for entry in said[name])  # type: ignore[attr-defined]

    return Outcome(
        _CODES[said["code"]],  # type: ignore[index]
        said["details"],  # type: ignore[arg-type]
        [base64.b64decode(response) for response in said["responses"]],  # type: ignore[attr-defined]
        entries("initial_metadata"),
        entries("trailing_metadata"),
    )
