# SPDX-License-Identifier: Apache-2.0
"""The server on the compiled core: in this process to look inside, as a process for exit codes and signals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from gristmill.core import create_engine, find_onnxruntime
from gristmill.options import ServerOptions
from gristmill.serve import Server
from gristmill_protos import inference_pb2 as pb
from gristmill_protos.inference_pb2_grpc import GRPCInferenceServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .fakes import LIMIT_S, add_version

SIM = "input x INT64 -1 2\noutput y INT64 -1 2 = identity x\noutput sum INT64 -1 = row_sum x\n"


def request(model: str = "m") -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, id="7")
    message.inputs.add(name="x", datatype="INT64", shape=[1, 2]).contents.int64_contents.extend([3, 4])
    return message


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_version(tmp_path, "m", 1, SIM, manifest=True)
    add_version(tmp_path, "broken", 1, "what is this")
    return tmp_path


# ---- in this process ----


class Running:
    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub = GRPCInferenceServiceStub(channel)


async def start(repository: Path, exit_timeout_s: float = LIMIT_S) -> Running:
    options = ServerOptions([repository], host="127.0.0.1", grpc_port=0, exit_timeout_s=exit_timeout_s)
    server = Server(options, create_engine())
    server.bind()
    await server.start()
    return Running(server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))


@pytest.fixture
async def running(repository: Path) -> AsyncIterator[Running]:
    running = await start(repository)
    yield running
    await running.channel.close()
    await running.server.stop()


async def test_inference_runs_through_the_core_and_shows_in_the_statistics(running: Running) -> None:
    answer = await running.stub.ModelInfer(request(), timeout=LIMIT_S)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    assert [output.name for output in answer.outputs] == ["y", "sum"]
    assert answer.raw_output_contents[1] == (7).to_bytes(8, "little")
    (statistics,) = (await running.stub.ModelStatistics(pb.ModelStatisticsRequest(), timeout=LIMIT_S)).model_stats
    assert (statistics.name, statistics.inference_count, statistics.execution_count) == ("m", 1, 1)


async def test_model_that_could_not_be_loaded_answers_with_the_reason(running: Running) -> None:
    for name, code, text in [
        ("broken", grpc.StatusCode.UNAVAILABLE, "model.sim"),
        ("nope", grpc.StatusCode.NOT_FOUND, "nope"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError, match=text) as error:
            await running.stub.ModelInfer(request(name), timeout=LIMIT_S)
        assert error.value.code() is code


async def test_stop_waits_for_calls_in_flight_and_not_for_health_watches(repository: Path) -> None:
    add_version(repository, "slow", 1, SIM + "latency_us 1:300000\n", manifest=True)
    running = await start(repository)
    watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    call = asyncio.ensure_future(running.stub.ModelInfer(request("slow"), timeout=LIMIT_S))
    while running.server.calls == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    stopping = asyncio.create_task(running.server.stop())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await call).model_name == "slow"
    assert await stopping
    await running.channel.close()


async def test_stop_says_when_the_grace_period_was_too_short(repository: Path) -> None:
    add_version(repository, "slow", 1, SIM + "latency_us 1:300000\n", manifest=True)
    running = await start(repository, exit_timeout_s=0)
    call = asyncio.ensure_future(running.stub.ModelInfer(request("slow"), timeout=LIMIT_S))
    while running.server.calls == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert not await running.server.stop()
    call.cancel()
    await running.channel.close()


def test_onnxruntime_is_found_without_being_imported() -> None:
    code = (
        "import sys; from gristmill.core import find_onnxruntime; print(find_onnxruntime());"
        "assert 'onnxruntime' not in sys.modules"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert Path(output) == find_onnxruntime()
    assert re.fullmatch(r"libonnxruntime\.so.*", Path(output).name)


# ---- as a process ----


class Process:
    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gristmill", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output = ""
        self.port = 0

    def wait_listening(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if found := re.search(r"listening on \S+:(\d+)$", line):
                self.port = int(found[1])
                return
        raise AssertionError(f"ended without listening: {self.process.communicate()[1]}")

    def end(self, number: signal.Signals) -> tuple[int, str]:
        os.kill(self.process.pid, number)
        errors = self.process.communicate(timeout=LIMIT_S)[1]
        return self.process.returncode, errors


@pytest.fixture
def process(repository: Path) -> Iterator[Process]:
    process = Process("--model-repository", str(repository), "--host", "127.0.0.1", "--grpc-port", "0")
    process.wait_listening()
    yield process
    process.process.kill()
    process.process.communicate()


def serve_fails(*arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a server that cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", "gristmill", "serve", "--log-level", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stderr


def test_start_ends_with_a_table_and_the_real_port(process: Process) -> None:
    assert process.port > 0
    assert re.search(r"m\s+│ 1\s+│ READY\s+│ sim", process.output)
    assert re.search(r"broken │ 1\s+│ UNAVAILABLE │\s+│ .*model\.sim", process.output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_server_in_order(process: Process, number: signal.Signals) -> None:
    status, errors = process.end(number)
    assert status == 0
    assert f"ending on {number.name}" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("grace", ["30", "0"])
def test_second_signal_or_the_end_of_the_grace_period_ends_a_busy_server(repository: Path, grace: str) -> None:
    add_version(repository, "slow", 1, SIM + "latency_us 1:60000000\n", manifest=True)
    process = Process("--model-repository", str(repository), "--grpc-port", "0", "--exit-timeout-secs", grace)
    process.wait_listening()
    with grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        slow = stub.ModelInfer.future(request("slow"))
        stub.ModelInfer(request(), timeout=LIMIT_S)  # on the same connection, so the slow one has arrived
        if grace == "0":
            status, errors = process.end(signal.SIGTERM)
            assert status == 0
            assert "1 requests were not answered" in errors
        else:
            os.kill(process.process.pid, signal.SIGTERM)
            assert process.process.stderr is not None
            while "waiting for 1 requests" not in (line := process.process.stderr.readline()):
                assert line, "the server ended on the first signal"
            assert process.end(signal.SIGTERM)[0] == 128 + signal.SIGTERM
        slow.cancel()


def test_second_server_on_the_port_fails_in_one_line(process: Process, repository: Path) -> None:
    status, errors = serve_fails(
        "--model-repository", str(repository), "--host", "127.0.0.1", "--grpc-port", str(process.port)
    )
    assert status == 1
    assert f"gristmill serve: cannot listen on 127.0.0.1:{process.port}" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_missing_repository_and_wrong_options_fail_in_one_line(tmp_path: Path) -> None:
    assert serve_fails("--model-repository", str(tmp_path / "gone")) == (
        2,
        f"gristmill serve: --model-repository {tmp_path / 'gone'}: no such directory; create it or correct the path\n",
    )
    assert serve_fails("--model-repository", str(tmp_path), "--load-model", "m") == (
        2,
        "gristmill serve: --load-model needs --model-control-mode explicit, not none\n",
    )


def test_log_lines_can_be_json(repository: Path) -> None:
    process = Process("--model-repository", str(repository), "--grpc-port", "0", "--log-format", "json")
    process.wait_listening()
    status, errors = process.end(signal.SIGTERM)
    assert status == 0
    events = [json.loads(line) for line in errors.splitlines()]
    assert {"time", "level", "logger", "message"} <= events[0].keys()
    assert any(event["message"] == "ending on SIGTERM" for event in events)
