# SPDX-License-Identifier: Apache-2.0
"""The commands: what they print, and the exit codes that docs/client.md promises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import typer
from gristmill_client.cli import register
from typer.testing import CliRunner, Result

from .fakes import FakeServer, running

app = typer.Typer()
register(app)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def url(server: FakeServer) -> Iterator[str]:
    with running(server) as address:
        yield address


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_models_list(url: str) -> None:
    table = run("models", "list", "--url", url)
    assert table.exit_code == 0
    assert "[damaged]" in table.output
    entries = json.loads(run("models", "list", "--url", url, "-o", "json").stdout)
    assert entries[0] == {"name": "echo", "version": "3", "state": "READY", "reason": ""}


def test_models_load_and_unload(url: str, server: FakeServer) -> None:
    assert run("models", "load", "echo", "--url", url).exit_code == 0
    assert server.loaded == ["echo"]
    assert run("models", "unload", "echo", "--url", url).exit_code == 0
    failed = run("models", "load", "broken", "--url", url)
    assert failed.exit_code == 1
    assert "the file is damaged" in failed.stderr


def test_infer(url: str, tmp_path: Path) -> None:
    result = json.loads(run("infer", "echo", "--input", "x=[[1, 2], [3, 4]]", "--url", url, "-o", "json").stdout)
    assert result["outputs"]["x"] == {"datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    np.save(tmp_path / "x.npy", np.array([[5, 6]], np.float32))
    table = run("infer", "echo", "--input", f"x=@{tmp_path / 'x.npy'}", "--url", url)
    assert table.exit_code == 0
    assert "5. 6." in table.stdout
    row = json.loads(run("infer", "pair", "--input", "x=[1, 2]", "--random", "--url", url, "-o", "json").stdout)
    assert row["outputs"]["x"]["data"] == [[1, 2]]
    assert row["outputs"]["y"]["shape"] == [1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("infer", "echo"), "no value for x FP32"),
        (("infer", "echo", "--input", "x"), "expected NAME=VALUE"),
        (("infer", "echo", "--input", "z=1"), "the inputs are x FP32"),
        (("infer", "echo", "--input", "x=two"), "expected JSON"),
        (("infer", "echo", "--input", "x=@nowhere.npy"), "cannot be read as .npy"),
        (("infer", "echo", "--random", "--shape", "x"), "expected NAME:DIM"),
        (("infer", "echo", "--random", "--shape", "x:9"), "expected a shape"),
        (("bench", "echo", "--concurrency", "0"), "expected numbers from 1"),
        (("bench", "echo", "--input-data", "ones"), "expected random, zero"),
    ],
)
def test_wrong_usage_is_2(url: str, words: tuple[str, ...], message: str) -> None:
    result = run(*words, "--url", url)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_failures_are_1_and_no_connection_is_3(url: str, server: FakeServer) -> None:
    assert run("infer", "nobody", "--random", "--url", url).exit_code == 1
    server.failures = [grpc.StatusCode.INTERNAL]
    failed = run("infer", "echo", "--random", "--url", url)
    assert failed.exit_code == 1
    assert "scripted INTERNAL" in failed.stderr
    lost = run("models", "list", "--url", "127.0.0.1:1")
    assert lost.exit_code == 3
    assert "127.0.0.1:1" in lost.stderr


@pytest.mark.parametrize("load", [("--concurrency", "1,3"), ("--request-rate", "50", "--distribution", "poisson")])
def test_bench(url: str, tmp_path: Path, load: tuple[str, ...]) -> None:
    file = tmp_path / "result.json"
    quick = ("--window", "0.1", "--max-windows", "2", "--processes", "2", "-b", "2", "--json", str(file))
    result = run("bench", "echo", *load, *quick, "--url", url, "-o", "json")
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    assert report["levels"] == json.loads(result.stdout)["levels"]
    assert len(report["levels"]) == (2 if "1,3" in load else 1)
    for level in report["levels"]:
        assert level["requests_per_second"] > 0
        assert level["rows_per_second"] == pytest.approx(2 * level["requests_per_second"])
        assert level["server"]["queue_us"] == pytest.approx(5)
        assert level["server"]["mean_batch"] == pytest.approx(2)
        assert level["errors"] == {}


def test_bench_tables(url: str) -> None:
    result = run("bench", "echo", "--window", "0.1", "--max-windows", "1", "--url", url)
    assert result.exit_code == 0, result.output
    for word in ("infer/s", "p99", "queue", "rows/batch", "1 at once"):
        assert word in result.stdout
