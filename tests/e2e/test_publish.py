# SPDX-License-Identifier: Apache-2.0
"""Versions published by `training.publish` while clients call: each takes over, and no request fails.

Version k multiplies by k, so that every answer tells whether it came whole from the version that it names.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper

from training.publish import (
    Arrays,
    Examples,
    ModelCard,
    OnnxModel,
    Origin,
    Tolerance,
    VersionContents,
    prove_parity,
    publish_version,
)

from .harness import LIMIT_S, RunningServer, inputs_of, serve, state_of, wait_until

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
LAST = 6


def publish(repository: Path, factor: int) -> None:
    """Version `factor`: y = factor * x."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [float(factor)])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "times", tensors[:1], tensors[1:], [constant]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    checker.check_model(model)
    onnx = OnnxModel(model.SerializeToString())

    def multiply(inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] * np.float32(factor)}

    meanings = {"x": "numbers", "y": f"{factor} times the numbers"}
    card = ModelCard(
        model="times",
        summary="Multiplies by its version.",
        licence="Apache-2.0",
        origin=Origin("tests.e2e.test_publish", "00" * 32, {}, {"factor": factor}),
        inputs=onnx.inputs(meanings),
        outputs=onnx.outputs(meanings),
        metrics={},
        limitations="Knows nothing else.",
    )
    proof = prove_parity("model.onnx", onnx.predict, multiply, {"x": ROWS}, Tolerance(0.0))
    contents = VersionContents(
        {"model.onnx": model.SerializeToString()}, card, Examples({"x": ROWS}, multiply({"x": ROWS})), [proof]
    )
    assert publish_version(repository, "times", contents).version == factor


class Callers:
    """What callers saw so far."""

    def __init__(self) -> None:
        self.versions: set[int] = set()
        self.answered = 0
        self.failures: list[BaseException] = []

    def has(self, version: int) -> bool:
        """Whether a version has answered, or none ever will."""
        return version in self.versions or bool(self.failures)


@contextmanager
def calling(server: RunningServer, count: int) -> Iterator[Callers]:
    """Callers that call without a pause and check every answer against the version that it names."""
    seen, stop = Callers(), threading.Event()

    def body(number: int) -> None:
        rows = ROWS[: 1 + number % 3] + number
        newest = 0
        try:
            with server.client() as client:
                while not stop.is_set():
                    answer = client.infer("times", inputs_of({"x": rows}))
                    version = int(answer.get_response().model_version)
                    np.testing.assert_array_equal(answer.as_numpy("y"), rows * np.float32(version))
                    assert version >= newest, "an older version answered after a newer one"
                    newest = version
                    seen.versions.add(version)
                    seen.answered += 1
        except BaseException as failure:
            seen.failures.append(failure)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert not seen.failures, seen.failures


def test_every_published_version_takes_over_without_a_failure(tmp_path: Path, frontend: str) -> None:
    publish(tmp_path, 1)
    polled = ("--model-control-mode", "poll", "--repository-poll-secs", "0.1")
    with serve(tmp_path, *polled, frontend=frontend) as server, calling(server, 16) as seen, server.client() as client:
        for version in range(1, LAST + 1):
            if version > 1:
                publish(tmp_path, version)
            wait_until(partial(seen.has, version), f"answers by version {version}")
        for version in range(1, LAST):
            shutil.rmtree(tmp_path / "times" / str(version))
        wait_until(lambda: set(state_of(client, "times")) == {str(LAST)}, "the deleted versions to go from the index")
        before = seen.answered
        wait_until(lambda: seen.answered > before + 16 or bool(seen.failures), "answers after the deletion")
        assert list(client.get_model_metadata("times").versions) == [str(LAST)]
    assert seen.versions == set(range(1, LAST + 1))


def test_reloads_on_request_bring_what_was_published_meanwhile(tmp_path: Path, frontend: str) -> None:
    publish(tmp_path, 1)
    explicit = ("--model-control-mode", "explicit", "--load-model", "times")
    with (
        serve(tmp_path, *explicit, frontend=frontend) as server,
        calling(server, 16) as seen,
        server.client() as client,
    ):
        for version in range(2, LAST + 1):
            publish(tmp_path, version)
            for _ in range(3):
                client.load_model("times")
            answer = client.infer("times", inputs_of({"x": ROWS}))
            assert answer.get_response().model_version == str(version)
    assert max(seen.versions) == LAST
