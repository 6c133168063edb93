# SPDX-License-Identifier: Apache-2.0
"""`gristmill models`, `infer` and `bench` as a script would use them: JSON on standard output, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .harness import RunningServer, run_gristmill
from .samples import Sample

FAILED, USAGE, UNAVAILABLE = 1, 2, 3


def run_json(*arguments: str) -> Any:
    done = run_gristmill(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_models_list_load_and_unload(server: RunningServer) -> None:
    url = ("--url", server.url)
    ready = {"version": "1", "state": "READY", "reason": ""}
    assert run_json("models", "list", *url) == [{"name": "echo", **ready}, {"name": "slow", **ready}]
    assert run_gristmill("models", "unload", "echo", *url).returncode == 0
    (echo, _) = run_json("models", "list", *url)
    assert (echo["state"], echo["reason"]) == ("UNAVAILABLE", "it was unloaded on request")
    refused = run_gristmill("infer", "echo", "--input", "X=[1,2,3,4]", *url)
    assert refused.returncode == UNAVAILABLE
    assert "echo" in refused.stderr
    assert run_gristmill("models", "load", "echo", *url).returncode == 0
    table = run_gristmill("models", "list", *url).stdout
    assert table.count("READY") == 2


def test_infer_prints_the_answer(server: RunningServer) -> None:
    answer = run_json("infer", "echo", "--input", "X=[[1,2,3,4],[5,6,7,8]]", "--url", server.url)
    assert (answer["model"], answer["version"]) == ("echo", "1")
    assert answer["outputs"]["SUM"] == {"datatype": "FP32", "shape": [2], "data": [10, 26]}
    assert answer["outputs"]["Y"]["data"] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    table = run_gristmill("infer", "echo", "--input", "X=[1,2,3,4]", "--url", server.url)
    assert table.returncode == 0
    assert "[10.]" in table.stdout


def test_infer_takes_text_and_files(sample_server: RunningServer, sample_repository: Path, tmp_path: Path) -> None:
    sample = Sample(sample_repository, "sklearn_titanic")
    words = []
    for name, array in sample.inputs.items():
        if array.dtype == object:
            words += ["--input", f"{name}={json.dumps(array.tolist())}"]
        else:
            np.save(tmp_path / f"{name}.npy", array)
            words += ["--input", f"{name}=@{tmp_path / name}.npy"]
    answer = run_json("infer", "sklearn_titanic", *words, "--url", sample_server.url)
    assert answer["outputs"]["label"]["data"] == sample.outputs["label"].tolist()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("infer", "nobody", "--random"), FAILED, "nobody"),
        (("infer", "echo"), USAGE, "no value for X FP32[-1, 4]"),
        (("infer", "echo", "--input", "Z=[1]"), USAGE, "the inputs are X FP32[-1, 4]"),
        (("infer", "echo", "--input", "X=[1,2,3]"), USAGE, "expects FP32[-1,4] for input 'X' but got FP32[1,3]"),
        (("infer", "slow", "--random", "--timeout", "0.05"), FAILED, "DEADLINE_EXCEEDED"),
        (("models", "load", "nobody"), FAILED, "nobody"),
        (("bench", "nobody", "--window", "0.1"), FAILED, "nobody"),
    ],
)
def test_failures_have_an_exit_code_and_one_line(
    server: RunningServer, arguments: tuple[str, ...], status: int, text: str
) -> None:
    done = run_gristmill(*arguments, "--url", server.url)
    assert done.returncode == status
    assert done.stdout == ""
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_server_has_an_exit_code_of_its_own(server: RunningServer) -> None:
    server.signal()
    assert server.wait() == 0
    for command in (("models", "list"), ("infer", "echo", "--random"), ("bench", "echo")):
        done = run_gristmill(*command, "--url", server.url)
        assert done.returncode == UNAVAILABLE
        assert server.url in done.stderr


def test_bench_reports_what_client_and_server_saw(server: RunningServer, tmp_path: Path) -> None:
    short = ("--window", "0.2", "--max-windows", "3", "--json", str(tmp_path / "bench.json"))
    report = run_json("bench", "echo", "--concurrency", "1,4", "-b", "2", *short, "--url", server.url)
    assert report == json.loads((tmp_path / "bench.json").read_text())
    assert len(report["levels"]) == 2
    for level in report["levels"]:
        assert level["requests_per_second"] > 0
        assert level["rows_per_second"] == pytest.approx(2 * level["requests_per_second"])
        assert not level["errors"]
        latency = level["latency"]
        assert 0 < latency["p50_us"] <= latency["p90_us"] <= latency["p95_us"] <= latency["p99_us"]
        assert level["server"]["compute_infer_us"] >= 0
        assert level["server"]["mean_batch"] >= 2
    open_loop = run_gristmill("bench", "echo", "--request-rate", "50", *short, "--url", server.url)
    assert open_loop.returncode == 0, open_loop.stderr
    assert "p99" in open_loop.stdout
