# SPDX-License-Identifier: Apache-2.0
"""Requests as they travel: ModelInferRequest messages, and the gRPC frame around a message."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping

import numpy as np
from gristmill_protos.inference_pb2 import ModelInferRequest

#: numpy's name of a type -> the KServe v2 protocol's, for the types that the benched models take.
_DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}


def infer_request(model: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialized ModelInferRequest with raw contents. Raises KeyError for a dtype that no benched model takes."""
    request = ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=_DATATYPES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
    return request.SerializeToString()


def grpc_frame(message: bytes) -> bytes:
    """An uncompressed gRPC frame: a zero byte, the length as a big-endian uint32, the message."""
    return struct.pack(">BI", 0, len(message)) + message


def gzip_frame(message: bytes) -> bytes:
    """A gRPC frame with the message compressed, for calls that say `grpc-encoding: gzip`."""
    compressed = gzip.compress(message)
    return struct.pack(">BI", 1, len(compressed)) + compressed
