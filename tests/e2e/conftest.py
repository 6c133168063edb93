# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from .grpc_clients.calls import CLIENTS, GrpcClient
from .harness import RunningServer, serve, write_sim
from .samples import SAMPLES, copy_newest

ECHO = """
input  X FP32 -1 4
output Y FP32 -1 4 = identity X
output SUM FP32 -1 = row_sum X
output COMPANY INT64 -1 = batch_rows
poison X 666
"""

SLOW = """
input  X FP32 -1 1
output Y FP32 -1 1 = identity X
latency_us 1:200000
"""


@pytest.fixture(scope="session")
def model_repository(request: pytest.FixtureRequest) -> Path:
    """Where the sample models are published; may change at any moment."""
    return Path(request.config.getoption("--model-repository"))


@pytest.fixture(scope="session")
def sample_repository(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest version of every sample model, as a copy that nobody publishes into."""
    repository = tmp_path_factory.mktemp("samples")
    for name in SAMPLES:
        copy_newest(model_repository, name, repository)
    return repository


@pytest.fixture(scope="session", params=["aio", "native"])
def frontend(request: pytest.FixtureRequest) -> str:
    """Every front end passes the same tests."""
    return str(request.param)


@pytest.fixture(scope="module", params=list(CLIENTS))
def grpc_client(request: pytest.FixtureRequest) -> GrpcClient:
    """Every gRPC implementation makes the same calls."""
    return CLIENTS[request.param]()


@pytest.fixture(scope="session")
def sample_server(sample_repository: Path, frontend: str) -> Iterator[RunningServer]:
    """A server of the sample models."""
    with serve(sample_repository, frontend=frontend) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """`echo`, which tells the company a row was run in, and `slow`, which takes 0.2 s for each request."""
    write_sim(tmp_path, "echo", 1, ECHO)
    write_sim(tmp_path, "slow", 1, SLOW, "max_batch_size: 8  # and no dynamic_batching\n")
    return tmp_path


@pytest.fixture
def server(repository: Path, frontend: str) -> Iterator[RunningServer]:
    """A server of `repository` in explicit mode with every model loaded."""
    mode = ("--model-control-mode", "explicit", "--load-model", "*")
    with serve(repository, *mode, frontend=frontend) as running:
        yield running


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    """One server of `echo` for a whole module."""
    repository = tmp_path_factory.mktemp("echo")
    write_sim(repository, "echo", 1, ECHO + "latency_us 1:500\n")
    with serve(repository, frontend=frontend) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    """Of the server that the test's module defines."""
    with server.client() as client:
        yield client
