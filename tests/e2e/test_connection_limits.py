# SPDX-License-Identifier: Apache-2.0
"""Connections that are idle or of age are told to go; clients of gRPC then make another, and no call fails."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from gristmill_protos import inference_pb2, inference_pb2_grpc

from .conftest import ECHO
from .harness import inputs_of, serve, wait_until, write_sim


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_sim(tmp_path, "echo", 1, ECHO)
    return tmp_path


def test_calls_outlive_the_connections_that_age(repository: Path, frontend: str) -> None:
    age = ("--max-connection-age-secs", "0.3", "--max-connection-age-grace-secs", "5")
    with serve(repository, *age, frontend=frontend) as server, server.client() as client:
        rows = np.ones((1, 4), dtype=np.float32)
        ends = time.monotonic() + 2.0
        while time.monotonic() < ends:
            assert np.array_equal(client.infer("echo", inputs_of({"X": rows})).as_numpy("Y"), rows)


def test_an_idle_connection_is_told_to_go(repository: Path, frontend: str) -> None:
    with (
        serve(repository, "--max-connection-idle-secs", "0.3", frontend=frontend) as server,
        grpc.insecure_channel(server.url) as channel,
    ):
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        assert stub.ServerLive(inference_pb2.ServerLiveRequest(), wait_for_ready=True).live
        wait_until(lambda: grpc.ChannelConnectivity.IDLE in states[1:], "the connection to be given up")
        assert stub.ServerLive(inference_pb2.ServerLiveRequest(), wait_for_ready=True).live
