# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import RunningServer, serve, write_sim

ROOT = Path(__file__).resolve().parents[2]

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
def model_repository() -> Path:
    """The published sample models; `make train` makes them."""
    return ROOT / "model_repo"


@pytest.fixture(scope="session")
def samples(model_repository: Path) -> Iterator[RunningServer]:
    """A server of the sample models."""
    with serve(model_repository) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """`echo`, which tells the company a row was run in, and `slow`, which takes 0.2 s for each request."""
    write_sim(tmp_path, "echo", 1, ECHO)
    write_sim(tmp_path, "slow", 1, SLOW, "max_batch_size: 8  # and no dynamic_batching\n")
    return tmp_path


@pytest.fixture(params=["aio"])
def frontend(request: pytest.FixtureRequest) -> str:
    """Every front end passes the same tests."""
    return str(request.param)


@pytest.fixture
def server(repository: Path, frontend: str) -> Iterator[RunningServer]:
    """A server of `repository` in explicit mode with every model loaded."""
    mode = ("--model-control-mode", "explicit", "--load-model", "*")
    with serve(repository, "--frontend", frontend, *mode) as running:
        yield running


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server of `echo` for a whole module."""
    repository = tmp_path_factory.mktemp("echo")
    write_sim(repository, "echo", 1, ECHO + "latency_us 1:500\n")
    with serve(repository) as running:
        yield running
