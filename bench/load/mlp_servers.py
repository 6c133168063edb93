# SPDX-License-Identifier: Apache-2.0
"""The servers that answer one row of a 16-64-32-1 MLP: Gristmill's front ends, peers and floors, all on one core."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.build import GRPC_CPP_ECHO, H2_FLOOR, HOT_PATH_FLOOR, build
from bench.client import BenchClient, WrongAnswerError, input_bytes, output_bytes
from bench.closed_loop import Target
from bench.frames import grpc_frame, infer_request
from bench.machine import onnxruntime_library
from bench.models import MLP_WIDTHS, publish_mlp, publish_sim
from bench.peers.triton import find_triton, triton_command
from bench.server import PinnedServer, gristmill_command, pinned_server

SERVER_CORE, LOAD_CORE = 0, 1

NATIVE = "gristmill, native"
AIO = "gristmill, aio"
#: The same server, which copies the row where the others run the MLP.
IDENTITY = "gristmill, native, identity model"
GRPC_AIO = "grpc.aio, no work"
GRPC_CPP = "gRPC C++, no work"
TRITON = "Triton"
HOT_PATH_NAME = "hot path floor"
H2_FLOOR_NAME = "HTTP/2 floor"
#: From what answers as Gristmill does to what does least.
ALL = (NATIVE, AIO, IDENTITY, TRITON, GRPC_AIO, GRPC_CPP, HOT_PATH_NAME, H2_FLOOR_NAME)

CONFIG = "max_batch_size: 256\ndynamic_batching { }\n"
_FRONTENDS = {NATIVE: "native", AIO: "aio"}
_IDENTITY_TEXT = f"input INPUT0 FP32 -1 {MLP_WIDTHS[0]}\noutput OUTPUT0 FP32 -1 {MLP_WIDTHS[0]} = identity INPUT0\n"


@dataclass(frozen=True)
class Setup:
    """What the servers need on disk, and the one request that each is asked."""

    repository: Path
    model: Path
    frame: Path
    request: bytes
    identity_frame: Path
    identity_request: bytes


def prepare(scratch: Path) -> Setup:
    """Write the models' repository and the requests' frames into an empty directory."""
    repository = scratch / "models"
    model = publish_mlp(repository, CONFIG)
    publish_sim(repository, "sim", _IDENTITY_TEXT, CONFIG)
    inputs = {"INPUT0": np.random.default_rng(0).normal(size=(1, MLP_WIDTHS[0])).astype(np.float32)}
    request, identity_request = infer_request("mlp", inputs), infer_request("sim", inputs)
    frame, identity_frame = scratch / "request.frame", scratch / "identity.frame"
    frame.write_bytes(grpc_frame(request))
    identity_frame.write_bytes(grpc_frame(identity_request))
    return Setup(repository, model, frame, request, identity_frame, identity_request)


@contextmanager
def running_servers(scratch: Path, names: Sequence[str]) -> Iterator[list[Target]]:
    """The servers of `names`, native first, with answers checked; without Triton where it is not installed.

    Raises BuildError, ServerError or WrongAnswerError.
    """
    setup = prepare(scratch)
    with ExitStack() as stack:

        def start(command: list[str]) -> PinnedServer:
            return stack.enter_context(pinned_server(command, SERVER_CORE))

        native = start(gristmill_command(setup.repository, "native"))
        reply = scratch / "reply"
        with BenchClient(native.port) as client:
            client.require_ready("mlp")
            reply.write_bytes(client.infer(setup.request))
        targets = []
        for name in names:
            if name == NATIVE:
                target = Target(name, native, setup.frame, "mlp")
            elif name == IDENTITY:
                _require_identity(native, setup.identity_request)
                target = Target(name, native, setup.identity_frame, "sim")
            elif name in _FRONTENDS:
                target = Target(name, start(gristmill_command(setup.repository, _FRONTENDS[name])), setup.frame, "mlp")
            elif (command := _peer(name, setup.model, reply, scratch)) is not None:
                target = Target(name, start(command), setup.frame)
            else:
                continue
            if name != IDENTITY:
                _require_answer(target, setup.request, reply.read_bytes())
            targets.append(target)
        yield targets


def _peer(name: str, model: Path, reply: Path, scratch: Path) -> list[str] | None:
    if name == TRITON:
        program = find_triton()
        return None if program is None else triton_command(program, model, scratch)
    commands = {
        GRPC_AIO: lambda: [sys.executable, "-m", "bench.floors.aio_floor", "0", str(reply)],
        GRPC_CPP: lambda: [str(build(GRPC_CPP_ECHO)), "0", str(reply)],
        HOT_PATH_NAME: lambda: [str(build(HOT_PATH_FLOOR)), "0", str(reply), str(model), str(onnxruntime_library())],
        H2_FLOOR_NAME: lambda: [str(build(H2_FLOOR)), "0", str(reply)],
    }
    return commands[name]()


def _require_answer(target: Target, request: bytes, reply: bytes) -> None:
    """Raise WrongAnswerError unless `target` answers as Gristmill did."""
    with BenchClient(target.server.port) as client:
        answer, expected = (
            np.frombuffer(b"".join(output_bytes(response)), dtype=np.float32)
            for response in (client.infer(request), reply)
        )
    if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=1e-4, atol=1e-6):
        raise WrongAnswerError(f"{target.name} answers {answer.tolist()}, gristmill {expected.tolist()}")


def _require_identity(server: PinnedServer, request: bytes) -> None:
    with BenchClient(server.port) as client:
        client.require_ready("sim")
        if output_bytes(client.infer(request)) != input_bytes(request):
            raise WrongAnswerError("the identity model does not answer with its input")
