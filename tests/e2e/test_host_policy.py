# SPDX-License-Identifier: Apache-2.0
"""Instances that run on the CPUs that they are given, and nothing else that does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from gristmill.repository.host_policy import parse_cpus
from tritonclient.utils import InferenceServerException

from .harness import inputs_of, run_gristmill, serve, write_sim
from .python_models import config, write_python

SIM = "input X INT64 -1 1\noutput Y INT64 -1 1 = identity X\n"
PROCESS = """
class TritonPythonModel:
    def execute(self, requests):
        y = np.array([[os.getpid()]], np.int64)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", y)]) for _ in requests]
"""
GROUP = 'instance_group {{ count: 3 host_policy: "{}" }}'


def cpus_of(status: Path) -> str:
    found = re.search(r"Cpus_allowed_list:\s*(\S+)", status.read_text())
    assert found
    return found[1]


def test_instances_run_where_their_policy_says(tmp_path: Path, frontend: str) -> None:
    cpu = max(os.sched_getaffinity(0))
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    write_sim(tmp_path, "pinned", 1, SIM, GROUP.format("last"))
    write_python(tmp_path, "python", PROCESS, config("X INT64 1", "Y INT64 1", GROUP.format("last")))
    write_sim(tmp_path, "free", 1, SIM)
    write_sim(tmp_path, "lost", 1, SIM, GROUP.format("nowhere"))
    with serve(tmp_path, "--host-policy", f"last={cpu}", frontend=frontend) as running, running.client() as client:
        tasks = list(Path(f"/proc/{running.process.pid}/task").glob("*/status"))
        pinned = [task for task in tasks if cpus_of(task) == str(cpu)]
        # The executors of both models, and one reader for each worker process.
        assert len(pinned) == 3 + 3 + 3
        x = inputs_of({"X": np.array([[4]], np.int64)})
        worker = int(client.infer("python", x).as_numpy("Y")[0, 0])
        assert cpus_of(Path(f"/proc/{worker}/status")) == str(cpu)
        for model in ("pinned", "free"):
            assert client.infer(model, x).as_numpy("Y")[0, 0] == 4
        with pytest.raises(InferenceServerException, match=r"unknown policy 'nowhere'; --host-policy gives .*: last"):
            client.infer("lost", x)


def test_lists_of_cpus() -> None:
    some = min(os.sched_getaffinity(0))
    assert parse_cpus(f"{some}") == parse_cpus(f"{some}-{some},{some}") == {some}
    for text in ("", "a", "1-", "3-1", "0,,1", "1.5"):
        with pytest.raises(ValueError, match="expected CPUs such as"):
            parse_cpus(text)
    with pytest.raises(ValueError, match="CPU 100000 is not among those"):
        parse_cpus("100000")


@pytest.mark.parametrize("text", ["last", "last=x", "last=100000"])
def test_a_policy_on_the_command_line_has_cpus(tmp_path: Path, text: str) -> None:
    done = run_gristmill("serve", "--model-repository", str(tmp_path), "--host-policy", text)
    assert done.returncode == 2
    assert f"--host-policy {text}: " in done.stderr
