# SPDX-License-Identifier: Apache-2.0
"""The proof of parity: what it compares, and what it says when it fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from training.export import with_batch_dimension
from training.publish import Arrays, OnnxModel, ParityError, Tolerance, prove_parity

X = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)


def double(inputs: Arrays) -> Arrays:
    return {"y": 2 * inputs["x"]}


def test_compares_one_row_two_rows_and_all() -> None:
    seen: list[int] = []

    def exported(inputs: Arrays) -> Arrays:
        seen.append(len(inputs["x"]))
        return {"y": 2 * inputs["x"] + np.float32(1e-4)}

    proof = prove_parity("model.onnx", exported, double, {"x": X}, Tolerance(absolute=1e-3))
    assert seen == [1, 2, 5]
    assert proof.batch_rows == (1, 2, 5)
    assert proof.largest_error["y"] == pytest.approx(1e-4, rel=1e-2)


def wrong_in_one_value(inputs: Arrays) -> Arrays:
    y = 2 * inputs["x"]
    if len(y) == 5:
        y[3, 1] += 0.5
    return {"y": y}


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        (
            wrong_in_one_value,
            r"output 'y', 5 rows: 1 of 10 values differ by more than 0.001 .* at \[3, 1\] is 1\.61\d+, expected 1\.11",
        ),
        (lambda inputs: {"y": 2 * inputs["x"] * np.nan}, r"2 of 2 values differ .* is nan"),
        (
            lambda inputs: {"y": 2 * inputs["x"][:1]},
            r"2 rows: expected the batch as first dimension, got shape \[1, 2\]",
        ),
        (
            lambda inputs: {"y": 2 * inputs["x"][:, :1]},
            r"expected float32 of shape \[1, 2\], got float32 of shape \[1, 1\]",
        ),
        (lambda inputs: {"y": inputs["x"].astype(np.int64)}, r"expected float32 of shape \[1, 2\], got int64"),
        (lambda inputs: {"z": 2 * inputs["x"]}, r"expected the outputs \['y'\], the exported model has \['z'\]"),
    ],
)
def test_says_what_differs(exported: Callable[[Arrays], Arrays], message: str) -> None:
    with pytest.raises(ParityError, match=message):
        prove_parity("model.onnx", exported, double, {"x": X}, Tolerance(absolute=1e-3))


def test_relative_tolerance() -> None:
    inputs = {"x": X * 1000}

    def exported(rows: Arrays) -> Arrays:
        return {"y": 2 * rows["x"] * np.float32(1.0005)}

    prove_parity("model.onnx", exported, double, inputs, Tolerance(absolute=0, relative=1e-3))
    with pytest.raises(ParityError):
        prove_parity("model.onnx", exported, double, inputs, Tolerance(absolute=0, relative=1e-4))


@pytest.mark.parametrize("kind", [np.int64, np.bool_, np.str_])
def test_what_is_no_float_must_be_equal(kind: type[np.generic]) -> None:
    expected = np.array([0, 1, 1, 0, 1]).astype(kind)
    wrong = np.array([0, 1, 1, 1, 1]).astype(kind)
    inputs = {"x": X}
    tolerance = Tolerance(absolute=10)
    prove_parity(
        "m", lambda i: {"y": expected[: len(i["x"])]}, lambda i: {"y": expected[: len(i["x"])]}, inputs, tolerance
    )
    with pytest.raises(ParityError, match=r"1 of 5 values differ; .* must be equal"):
        prove_parity(
            "m", lambda i: {"y": wrong[: len(i["x"])]}, lambda i: {"y": expected[: len(i["x"])]}, inputs, tolerance
        )


@pytest.mark.parametrize("inputs", [{"x": X[:2]}, {"x": X, "w": X[:4]}])
def test_needs_rows_to_compare(inputs: Arrays) -> None:
    with pytest.raises(ParityError, match="at least 3 rows, and as many in each input"):
        prove_parity("model.onnx", double, double, inputs, Tolerance(absolute=1))


def make_identity(kind: int, rows: int | str | None, output_rows: int) -> onnx.ModelProto:
    shape = None if rows is None else [rows, 2]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, shape or [])],
        [helper.make_tensor_value_info("y", kind, [output_rows, 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_an_exported_model_in_onnx_runtime() -> None:
    model = OnnxModel(with_batch_dimension(make_identity(TensorProto.STRING, "n", 1)))
    assert model.inputs({"x": "words"})[0].shape == (-1, 2)
    assert model.outputs({"y": "the same"})[0].shape == (-1, 2), "the declared 1 was wrong"
    assert model.outputs({"y": "the same"})[0].datatype == "BYTES"
    words = np.array([["a", "ä"], ["", "longer"], ["b", "c"]])
    np.testing.assert_array_equal(model.predict({"x": words})["y"], words)
    prove_parity("model.onnx", model.predict, lambda i: {"y": i["x"]}, {"x": words}, Tolerance(absolute=0))


@pytest.mark.parametrize("rows", [4, None])
def test_a_fixed_batch_size_is_refused(rows: int | None) -> None:
    with pytest.raises(ValueError, match="input 'x' has no batch dimension of any size"):
        with_batch_dimension(make_identity(TensorProto.FLOAT, rows, 4))
