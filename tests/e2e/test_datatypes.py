# SPDX-License-Identifier: Apache-2.0
"""Every datatype of the protocol, raw and typed, through ONNX Runtime and the simulated backend and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from .harness import LIMIT_S, RunningServer, serve, write_sim

#: Protocol name -> numpy type, ONNX type, field of InferTensorContents ("" where there is none).
DATATYPES: dict[str, tuple[Any, int, str]] = {
    "BOOL": (np.bool_, TensorProto.BOOL, "bool_contents"),
    "UINT8": (np.uint8, TensorProto.UINT8, "uint_contents"),
    "UINT16": (np.uint16, TensorProto.UINT16, "uint_contents"),
    "UINT32": (np.uint32, TensorProto.UINT32, "uint_contents"),
    "UINT64": (np.uint64, TensorProto.UINT64, "uint64_contents"),
    "INT8": (np.int8, TensorProto.INT8, "int_contents"),
    "INT16": (np.int16, TensorProto.INT16, "int_contents"),
    "INT32": (np.int32, TensorProto.INT32, "int_contents"),
    "INT64": (np.int64, TensorProto.INT64, "int64_contents"),
    "FP16": (np.float16, TensorProto.FLOAT16, ""),
    "FP32": (np.float32, TensorProto.FLOAT, "fp32_contents"),
    "FP64": (np.float64, TensorProto.DOUBLE, "fp64_contents"),
    "BYTES": (np.object_, TensorProto.STRING, "bytes_contents"),
    "BF16": (np.uint16, TensorProto.BFLOAT16, ""),  # its bits
}

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)


def identity_model(onnx_type: int) -> bytes:
    tensor = [helper.make_tensor_value_info(name, onnx_type, ["rows", "columns"]) for name in ("X", "Y")]
    graph = helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "identity", tensor[:1], tensor[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def stub(
    tmp_path_factory: pytest.TempPathFactory, frontend: str
) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """A server with an identity model of every datatype on both backends: `onnx_fp32`, `sim_fp32` and so on."""
    repository = tmp_path_factory.mktemp("datatypes")
    for name, (_, onnx_type, _) in DATATYPES.items():
        version = repository / f"onnx_{name.lower()}" / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(identity_model(onnx_type))
        write_sim(repository, f"sim_{name.lower()}", 1, f"input X {name} -1 -1\noutput Y {name} -1 -1 = identity X\n")
    with serve(repository, frontend=frontend) as server, grpc.insecure_channel(server.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def arrays(name: str) -> st.SearchStrategy[np.ndarray]:
    numpy_type = DATATYPES[name][0]
    if name == "BYTES":
        # ONNX strings end at no byte in particular, NUL included.
        return hnp.arrays(np.object_, SHAPES, elements=st.binary(max_size=12), fill=st.nothing())
    return hnp.arrays(numpy_type, SHAPES)


def raw_bytes(array: np.ndarray) -> bytes:
    if array.dtype == np.object_:
        return bytes(serialize_byte_tensor(array).item())
    return array.tobytes()


@pytest.mark.parametrize("backend", ["onnx", "sim"])
@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_comes_back_as_it_went(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, backend: str, name: str
) -> None:
    field = DATATYPES[name][2]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(array=arrays(name), typed=st.booleans() if field else st.just(False))
    def comes_back(array: np.ndarray, typed: bool) -> None:
        request = service_pb2.ModelInferRequest(model_name=f"{backend}_{name.lower()}")
        tensor = request.inputs.add(name="X", datatype=name, shape=array.shape)
        if typed:
            getattr(tensor.contents, field).extend(array.ravel().tolist())
        else:
            request.raw_input_contents.append(raw_bytes(array))
        answer = stub.ModelInfer(request, timeout=LIMIT_S)
        assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("Y", name)
        assert tuple(answer.outputs[0].shape) == array.shape
        assert answer.raw_output_contents[0] == raw_bytes(array)

    comes_back()


def test_models_without_a_batch_dimension(tmp_path: Path, frontend: str) -> None:
    """A fixed first dimension: the request's shape is the model's shape, and every request runs alone."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("X", "Y")]
    graph = helper.make_graph([helper.make_node("Neg", ["X"], ["Y"])], "fixed", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    (tmp_path / "fixed" / "1").mkdir(parents=True)
    (tmp_path / "fixed" / "1" / "model.onnx").write_bytes(model.SerializeToString())
    with serve(tmp_path, frontend=frontend) as server:
        check_fixed(server)


def check_fixed(server: RunningServer) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    with grpc.insecure_channel(server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="fixed", raw_input_contents=[array.tobytes()])
        request.inputs.add(name="X", datatype="FP32", shape=array.shape)
        answer = stub.ModelInfer(request, timeout=LIMIT_S)
        assert answer.raw_output_contents[0] == (-array).tobytes()
        config = stub.ModelConfig(service_pb2.ModelConfigRequest(name="fixed"), timeout=LIMIT_S).config
        assert config.max_batch_size == 0
        assert list(config.input[0].dims) == [2, 3]
