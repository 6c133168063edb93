# SPDX-License-Identifier: Apache-2.0
"""Where a server can listen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from .conftest import ECHO
from .harness import inputs_of, run_gristmill, serve, write_sim

ROWS = np.ones((1, 4), dtype=np.float32)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_sim(tmp_path / "models", "echo", 1, ECHO)
    return tmp_path / "models"


def test_a_unix_socket(repository: Path, tmp_path: Path, frontend: str) -> None:
    address = f"unix:{tmp_path / 'gristmill.sock'}"
    with (
        serve(repository, "--host", address, frontend=frontend) as server,
        triton.InferenceServerClient(address) as client,
    ):
        assert server.url == address
        assert np.array_equal(client.infer("echo", inputs_of({"X": ROWS})).as_numpy("Y"), ROWS)


def test_ipv6(repository: Path, frontend: str) -> None:
    with serve(repository, "--host", "::1", frontend=frontend) as server, server.client() as client:
        assert server.url.startswith("[::1]:")
        assert np.array_equal(client.infer("echo", inputs_of({"X": ROWS})).as_numpy("Y"), ROWS)


def test_an_address_that_cannot_be_had(repository: Path, frontend: str) -> None:
    common = ("serve", "--model-repository", str(repository), "--frontend", frontend)
    ended = run_gristmill(*common, "--host", "unix:/nonexistent/gristmill.sock")
    assert ended.returncode == 1
    assert "cannot listen on unix:/nonexistent/gristmill.sock" in ended.stderr
