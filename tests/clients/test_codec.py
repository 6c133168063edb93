# SPDX-License-Identifier: Apache-2.0
"""Arrays to messages and back, against protobuf's own reading and against tritonclient's."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from gristmill_client import Internal, InvalidArgument
from gristmill_client import datatypes as dt
from gristmill_client.codec import RequestOptions, decode_response, encode_request
from gristmill_protos import inference_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

DTYPES = [np.bool_, *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8", ">i4", ">f8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
BYTES_ARRAYS = hnp.arrays(np.object_, SHAPES, elements=st.binary(max_size=9), fill=st.nothing())


def echo(request: bytes) -> bytes:
    """The answer that gives back the inputs, as protobuf reads and writes them."""
    message = pb.ModelInferRequest.FromString(request)
    response = pb.ModelInferResponse(model_name=message.model_name, raw_output_contents=message.raw_input_contents)
    for tensor in message.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return bytes(response.SerializeToString())


@given(first=ARRAYS, second=ARRAYS)
def test_arrays_come_back(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> None:
    result = decode_response(echo(encode_request("m", {"a": first, "b": second}, RequestOptions())), "m")
    assert list(result) == ["a", "b"]
    for sent, received in ((first, result["a"]), (second, result["b"])):
        assert received.shape == sent.shape
        assert received.dtype == sent.dtype.newbyteorder("<")
        assert received.tobytes() == sent.astype(received.dtype).tobytes()
        assert not received.flags.writeable


@given(BYTES_ARRAYS)
def test_bytes_come_back(array: np.ndarray[Any, Any]) -> None:
    result = decode_response(echo(encode_request("m", {"a": array}, RequestOptions())), "m")
    assert result["a"].shape == array.shape
    assert result["a"].tolist() == array.tolist()


@given(ARRAYS.filter(lambda array: array.dtype.byteorder != ">"))
def test_requests_say_what_tritonclient_says(array: np.ndarray[Any, Any]) -> None:
    tensor = triton.InferInput("a", list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    ours = pb.ModelInferRequest.FromString(encode_request("m", {"a": array}, RequestOptions()))
    assert ours.inputs[0].datatype == tensor.datatype()
    assert list(ours.inputs[0].shape) == tensor.shape()
    assert ours.raw_input_contents[0] == (tensor._get_content() or b"")


def test_strings_are_utf8_bytes() -> None:
    array = np.array(["a", "é"])
    ours = pb.ModelInferRequest.FromString(encode_request("m", {"a": array}, RequestOptions()))
    expected = serialize_byte_tensor(np.array([b"a", "é".encode()], object)).item()
    assert ours.inputs[0].datatype == "BYTES"
    assert ours.raw_input_contents[0] == expected


def test_bfloat16_by_ml_dtypes() -> None:
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    result = decode_response(echo(encode_request("m", {"a": array}, RequestOptions())), "m")
    assert result["a"].tolist() == [1.5, -2]
    assert result["a"].dtype == ml_dtypes.bfloat16


def test_typed_contents_are_read() -> None:
    response = pb.ModelInferResponse(model_name="m")
    response.outputs.add(name="a", datatype="INT8", shape=[2]).contents.int_contents.extend([-1, 2])
    response.outputs.add(name="b", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"x")
    result = decode_response(response.SerializeToString(), "m")
    assert result["a"].tolist() == [-1, 2]
    assert result["b"].tolist() == [b"x"]


def test_outputs_are_views() -> None:
    array = np.arange(1024, dtype=np.uint8)
    data = echo(encode_request("m", {"a": array}, RequestOptions()))
    result = decode_response(data, "m")
    assert np.shares_memory(result["a"], np.frombuffer(data, np.uint8))


def test_damaged_answers_are_refused() -> None:
    whole = echo(encode_request("m", {"a": np.arange(3.0)}, RequestOptions()))
    for length in range(1, len(whole)):
        try:
            result = decode_response(whole[:length], "m")
        except Internal as error:
            assert "cannot be read" in error.message  # noqa: PT017  # most truncations, but not those between fields
        else:
            assert len(result) == 0
    with pytest.raises(KeyError, match="no output 'z'; the answer has a"):
        decode_response(whole, "m")["z"]


@pytest.mark.parametrize(
    ("parameters", "words"), [({"p": 2**70}, "64 bits"), ({"p": [1]}, "expected bool, int, float or str")]
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        encode_request("m", {}, RequestOptions(parameters=parameters))


def test_dtypes_without_a_counterpart_are_refused() -> None:
    for dtype in ("complex64", "M8[s]", "V4"):
        with pytest.raises(ValueError, match="no counterpart"):
            dt.datatype_of(np.dtype(dtype))
    with pytest.raises(ValueError, match="unknown datatype"):
        dt.dtype_of("FP8")
    with pytest.raises(ValueError, match="elements of bytes or str"):
        dt.encode(np.array([1, None], object))
