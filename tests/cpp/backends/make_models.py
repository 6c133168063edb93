# SPDX-License-Identifier: Apache-2.0
"""Write the ONNX models that the backend tests and benches run, or print where ONNX Runtime's library lies.

make_models.py DIRECTORY    writes <name>.onnx files
make_models.py --library    prints the shared library of the installed `onnxruntime` package
"""

import importlib.util
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper, save

IR_VERSION = 9  # read by every ONNX Runtime since 1.16
OPSET = 19

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def tensor(name: str, dtype: str, dims: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TYPES[dtype], list(dims))


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
) -> ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializers)
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def identity(dtype: str, dims: Sequence[int | str]) -> ModelProto:
    node = helper.make_node("Identity", ["X"], ["Y"])
    return model([node], [tensor("X", dtype, dims)], [tensor("Y", dtype, dims)])


def two_outputs() -> ModelProto:
    nodes = [
        helper.make_node("Identity", ["B"], ["B_OUT"]),
        helper.make_node("ReduceSum", ["A", "axes"], ["TOTAL"], keepdims=0),
    ]
    inputs = [tensor("A", "FP32", ["batch", 4]), tensor("B", "INT64", ["batch", 2])]
    outputs = [tensor("B_OUT", "INT64", ["batch", 2]), tensor("TOTAL", "FP32", ["batch"])]
    return model(nodes, inputs, outputs, {"axes": np.array([1], dtype=np.int64)})


def poisoned() -> ModelProto:
    """Ids from 0 to 9 come back; any other makes the whole batch fail."""
    node = helper.make_node("Gather", ["table", "IDS"], ["IDS_OUT"])
    constants = {"table": np.arange(10, dtype=np.int64)}
    return model([node], [tensor("IDS", "INT64", ["batch"])], [tensor("IDS_OUT", "INT64", ["batch"])], constants)


def lying_shape() -> ModelProto:
    """Declare one label, as LightGBM's converter does, and give one per row."""
    node = helper.make_node("ArgMax", ["X"], ["LABEL"], axis=1, keepdims=0)
    return model([node], [tensor("X", "FP32", ["batch", 3])], [tensor("LABEL", "INT64", [1])])


def dynamic_dims() -> ModelProto:
    node = helper.make_node("ReduceSum", ["X", "axes"], ["Y"], keepdims=0)
    constants = {"axes": np.array([1], dtype=np.int64)}
    return model([node], [tensor("X", "FP32", ["b", "length", 2])], [tensor("Y", "FP32", ["b", 2])], constants)


def nonzero() -> ModelProto:
    node = helper.make_node("NonZero", ["X"], ["INDEX"])
    return model([node], [tensor("X", "FP32", ["n"])], [tensor("INDEX", "INT64", [1, "found"])])


def sequence_output() -> ModelProto:
    node = helper.make_node("SplitToSequence", ["X"], ["PARTS"], axis=1)
    parts = helper.make_tensor_sequence_value_info("PARTS", TensorProto.FLOAT, None)
    return model([node], [tensor("X", "FP32", ["batch", 3])], [parts])


def float8_output() -> ModelProto:
    node = helper.make_node("Cast", ["X"], ["SMALL"], to=TensorProto.FLOAT8E4M3FN)
    small = helper.make_tensor_value_info("SMALL", TensorProto.FLOAT8E4M3FN, ["batch"])
    return model([node], [tensor("X", "FP32", ["batch"])], [small])


def mlp(widths: Sequence[int]) -> ModelProto:
    random = np.random.default_rng(7)
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    value = "INPUT0"
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        last = layer == len(widths) - 2
        constants[f"w{layer}"] = (random.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)).astype(np.float32)
        constants[f"b{layer}"] = random.standard_normal(fan_out).astype(np.float32)
        linear = "OUTPUT0" if last else f"linear{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [linear]))
        if not last:
            value = f"relu{layer}"
            nodes.append(helper.make_node("Relu", [linear], [value]))
    inputs = [tensor("INPUT0", "FP32", ["batch", widths[0]])]
    return model(nodes, inputs, [tensor("OUTPUT0", "FP32", ["batch", widths[-1]])], constants)


def all_models() -> dict[str, ModelProto]:
    models = {f"identity_{dtype}": identity(dtype, ["batch", "width"]) for dtype in TYPES}
    return models | {
        "two_outputs": two_outputs(),
        "no_batch": identity("FP32", [3, 2]),
        "scalar": identity("FP32", []),
        "poisoned": poisoned(),
        "lying_shape": lying_shape(),
        "dynamic_dims": dynamic_dims(),
        "nonzero": nonzero(),
        "sequence_output": sequence_output(),
        "float8_output": float8_output(),
        "mlp": mlp([16, 64, 64, 1]),
    }


def library() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        sys.exit("the Python package onnxruntime is not installed: pip install onnxruntime")
    found = sorted((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        sys.exit(f"no capi/libonnxruntime.so.* beside {spec.origin}")
    return found[0]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--library":
        print(library())
        return
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, proto in all_models().items():
        checker.check_model(proto)
        save(proto, directory / f"{name}.onnx")


if __name__ == "__main__":
    main()
