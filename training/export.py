# SPDX-License-Identifier: Apache-2.0
"""What exported ONNX models have in common: a batch dimension of any size, declared on every input and output."""

from __future__ import annotations

import onnx

BATCH = "batch"


def with_batch_dimension(model: onnx.ModelProto) -> bytes:
    """The bytes of `model`, with the first dimension of every input and output declared as of any size.

    Converters get outputs wrong: LightGBM's declares a label of shape [1] that comes with one row per input row.
    Whether the model can indeed run any number of rows is for the proof of parity to show. Raises ValueError for an
    input of fixed batch size or of rank 0, which no declaration can mend.
    """
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if not dimensions or dimensions[0].HasField("dim_value"):
            raise ValueError(f"input '{value.name}' has no batch dimension of any size; export it with a dynamic one")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
