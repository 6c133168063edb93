# SPDX-License-Identifier: Apache-2.0
"""An ONNX model in ONNX Runtime: what it takes, what it gives, and its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from training.publish.model_card import Tensor
from training.publish.parity import Arrays

#: ONNX Runtime's name of a type -> the KServe v2 protocol's.
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxModel:
    """A loaded model. Raises ONNX Runtime's own exceptions if it is not a valid one."""

    def __init__(self, model: bytes) -> None:
        """Load the content of a .onnx file."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def inputs(self, meanings: Mapping[str, str]) -> tuple[Tensor, ...]:
        """The inputs, each with its meaning for the model card. Raises KeyError for one without."""
        return _describe(self._session.get_inputs(), meanings)

    def outputs(self, meanings: Mapping[str, str]) -> tuple[Tensor, ...]:
        """The outputs, each with its meaning for the model card. Raises KeyError for one without."""
        return _describe(self._session.get_outputs(), meanings)

    def predict(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run one batch; strings go in as arrays of kind "U" and come out as such."""
        feed = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in inputs.items()}
        names = [output.name for output in self._session.get_outputs()]
        results = self._session.run(names, feed)
        return {
            name: np.asarray(array, dtype=np.str_) if array.dtype.hasobject else array
            for name, array in zip(names, results, strict=True)
        }


def _describe(nodes: Sequence[Any], meanings: Mapping[str, str]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=node.name,
            datatype=_DATATYPES[node.type],
            shape=tuple(size if isinstance(size, int) else -1 for size in node.shape),
            meaning=meanings[node.name],
        )
        for node in nodes
    )
