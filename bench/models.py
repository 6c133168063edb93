# SPDX-License-Identifier: Apache-2.0
"""Models to bench: a seeded MLP, published sample models, and repositories of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MLP_WIDTHS = (16, 64, 32, 1)
_SEED = 16
_OPSET = 17
# The oldest that has the opset, so that older runtimes read the file too.
_IR_VERSION = 8


class MissingModelError(Exception):
    """A sample model is not published."""


@dataclass(frozen=True)
class SampleModel:
    """The newest published version of a model. `inputs`, `outputs`: its examples, an array of rows for each tensor."""

    name: str
    directory: Path
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    @property
    def file(self) -> Path:
        """The ONNX model."""
        return self.directory / "model.onnx"

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """`count` rows of each input, the published examples over and over."""
        return {name: np.resize(array, (count, *array.shape[1:])) for name, array in self.inputs.items()}


def find_sample(repository: Path, name: str) -> SampleModel:
    """The newest version of `name`. Raises MissingModelError."""
    versions = [path for path in (repository / name).glob("*") if path.name.isdecimal()]
    if not versions:
        raise MissingModelError(f"expected a version of {name} in {repository}; publish it with: make train")
    directory = max(versions, key=lambda path: int(path.name))
    with np.load(directory / "expected.npz") as examples:
        inputs, outputs = (
            {key.removeprefix(kind): examples[key] for key in examples.files if key.startswith(kind)}
            for kind in ("input.", "output.")
        )
    return SampleModel(name, directory, inputs, outputs)


def copy_model(sample: SampleModel, repository: Path, name: str, config: str) -> None:
    """Put a copy of `sample` into `repository` as version 1 of `name`, with the text of its config.pbtxt."""
    shutil.copytree(sample.directory, repository / name / "1")
    (repository / name / "config.pbtxt").write_text(config)


def publish_mlp(repository: Path, config: str) -> Path:
    """Build the MLP into `repository` as version 1 of `mlp`; returns the model file."""
    return _publish(repository, "mlp", "model.onnx", build_mlp(), config)


def publish_sim(repository: Path, name: str, text: str, config: str) -> None:
    """Publish a simulated model (csrc/backends/sim/sim_model_file.h) into `repository` as version 1 of `name`."""
    _publish(repository, name, "model.sim", text.encode(), config)


def _publish(repository: Path, model: str, file: str, content: bytes, config: str) -> Path:
    directory = repository / model / "1"
    directory.mkdir(parents=True)
    (directory / file).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (directory / "manifest.json").write_text(json.dumps({"format": 1, "files": {file: entry}}))
    (directory.parent / "config.pbtxt").write_text(config)
    return directory / file


def build_mlp() -> bytes:
    """A multilayer perceptron of MLP_WIDTHS with ReLU between: INPUT0 float32[N,16] -> OUTPUT0 float32[N,1]."""
    generator = np.random.default_rng(_SEED)
    nodes, weights, last = [], [], "INPUT0"
    layers = len(MLP_WIDTHS) - 1
    for layer, (taken, given) in enumerate(itertools.pairwise(MLP_WIDTHS)):
        output = "OUTPUT0" if layer == layers - 1 else f"sum{layer}"
        matrix = generator.normal(0, taken**-0.5, (taken, given)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"weight{layer}"))
        weights.append(numpy_helper.from_array(generator.normal(0, 0.1, given).astype(np.float32), f"bias{layer}"))
        nodes.append(helper.make_node("Gemm", [last, f"weight{layer}", f"bias{layer}"], [output]))
        if output != "OUTPUT0":
            nodes.append(helper.make_node("Relu", [output], [f"relu{layer}"]))
            last = f"relu{layer}"
    inputs = [helper.make_tensor_value_info("INPUT0", TensorProto.FLOAT, ["N", MLP_WIDTHS[0]])]
    outputs = [helper.make_tensor_value_info("OUTPUT0", TensorProto.FLOAT, ["N", MLP_WIDTHS[-1]])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
