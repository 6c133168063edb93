# SPDX-License-Identifier: Apache-2.0
import gzip

import numpy as np
import pytest
from gristmill_protos.inference_pb2 import ModelInferRequest

from bench.frames import grpc_frame, gzip_frame, infer_request


@pytest.mark.parametrize("message", [b"", b"abc", bytes(70_000)])
def test_a_frame_is_a_zero_a_big_endian_length_and_the_message(message: bytes) -> None:
    frame = grpc_frame(message)
    assert frame[0] == 0
    assert int.from_bytes(frame[1:5], "big") == len(message)
    assert frame[5:] == message


def test_a_gzip_frame_has_its_flag_the_compressed_length_and_the_message() -> None:
    frame = gzip_frame(bytes(70_000))
    assert frame[0] == 1
    assert int.from_bytes(frame[1:5], "big") == len(frame) - 5
    assert gzip.decompress(frame[5:]) == bytes(70_000)


def test_a_request_carries_every_input_raw() -> None:
    users = np.array([[1], [2]], dtype=np.int64)
    rates = np.array([[0.5, 1.5]], dtype=np.float32)
    request = ModelInferRequest.FromString(infer_request("m", {"user": users, "rate": rates}))
    assert request.model_name == "m"
    inputs = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs]
    assert inputs == [("user", "INT64", [2, 1]), ("rate", "FP32", [1, 2])]
    assert list(request.raw_input_contents) == [users.tobytes(), rates.tobytes()]


def test_a_transposed_array_is_sent_in_row_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    request = ModelInferRequest.FromString(infer_request("m", {"x": array}))
    assert np.frombuffer(request.raw_input_contents[0], np.int32).tolist() == [0, 3, 1, 4, 2, 5]


def test_a_dtype_that_no_benched_model_takes_is_refused() -> None:
    with pytest.raises(KeyError, match="complex64"):
        infer_request("m", {"x": np.zeros(1, dtype=np.complex64)})
