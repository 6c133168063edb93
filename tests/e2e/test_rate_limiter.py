# SPDX-License-Identifier: Apache-2.0
"""Models that share a resource: all are served, one at a time, and none that needs what is not there."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .harness import in_threads, inputs_of, run_gristmill, serve, write_sim
from .python_models import config, write_python

#: Tells by a file that it runs, and fails if another does.
ALONE = """
class TritonPythonModel:
    def execute(self, requests):
        lock = "%s"
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
        time.sleep(0.003)
        os.unlink(lock)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", r.inputs()[0].as_numpy())]) for r in requests]
"""
LIMITER = 'instance_group {{ count: 2 rate_limiter {{ resources {{ name: "r" count: {} }} priority: {} }} }}'


def test_models_that_share_a_resource_take_turns(tmp_path: Path, frontend: str) -> None:
    for weight, name in enumerate(("a", "b", "c"), start=1):
        limiter = LIMITER.format(1, weight)
        write_python(tmp_path, name, ALONE % (tmp_path / ".lock"), config("X INT64 1", "Y INT64 1", limiter))
    write_sim(tmp_path, "free", 1, "input X INT64 -1 1\noutput Y INT64 -1 1 = identity X\n")
    answers = threading.Semaphore(0)
    with serve(tmp_path, frontend=frontend) as running:

        def call(number: int) -> None:
            with running.client() as client:
                for turn in range(15):
                    model = ("a", "b", "c", "free")[(number + turn) % 4]
                    x = np.array([[number * 1000 + turn]], np.int64)
                    assert client.infer(model, inputs_of({"X": x})).as_numpy("Y")[0, 0] == x[0, 0]
                    answers.release()

        in_threads(8, call)
        with running.client() as client:
            wanted = client.get_model_config("b").config.instance_group[0].rate_limiter
            assert (wanted.resources[0].name, wanted.priority) == ("r", 2)


def test_a_model_that_needs_more_than_there_is_is_not_loaded(tmp_path: Path, frontend: str) -> None:
    text = "input X INT64 -1 1\noutput Y INT64 -1 1 = identity X\n"
    write_sim(tmp_path, "much", 1, text, LIMITER.format(3, 1))
    write_sim(tmp_path, "little", 1, text, LIMITER.format(2, 1))
    with serve(tmp_path, "--rate-limit-resource", "r=2", frontend=frontend) as running, running.client() as client:
        x = inputs_of({"X": np.array([[1]], np.int64)})
        assert isinstance(client.infer("little", x), triton.InferResult)
        with pytest.raises(InferenceServerException, match="needs 3 of resource 'r', of which the server has 2"):
            client.infer("much", x)


def test_a_resource_on_the_command_line_has_a_count(tmp_path: Path) -> None:
    done = run_gristmill("serve", "--model-repository", str(tmp_path), "--rate-limit-resource", "r")
    assert done.returncode == 2
    assert "expected NAME=COUNT" in done.stderr
