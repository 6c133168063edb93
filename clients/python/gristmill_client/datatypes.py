# SPDX-License-Identifier: Apache-2.0
"""numpy arrays to tensors of the v2 protocol and back: element types, and the raw bytes of the elements.

Raw bytes are row-major and little-endian; an element of BYTES is its length as a little-endian uint32 and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = bytes | memoryview

BYTES = "BYTES"
BF16 = "BF16"
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {(dtype.kind, dtype.itemsize): name for name, dtype in _DTYPES.items()}
#: Every element type of the protocol.
DATATYPES = (*_DTYPES, BF16, BYTES)
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy dtype. Raises ValueError for one that the protocol lacks."""
    if dtype.kind in "OSU":
        return BYTES
    if dtype.name == "bfloat16":
        return BF16
    name = _NAMES.get((dtype.kind, dtype.itemsize))
    if name is None:
        raise ValueError(
            f"dtype {dtype} has no counterpart in the protocol; expected bool, (u)int8 to (u)int64, float16, float32, "
            "float64, bfloat16 of ml_dtypes, or bytes and str for BYTES: convert with array.astype(...)"
        )
    return name


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy dtype of a protocol type; BYTES is object (of bytes).

    Raises ValueError for an unknown name, and for BF16 where the package ml_dtypes, which adds the type, is absent.
    """
    if datatype == BYTES:
        return np.dtype(object)
    if datatype == BF16:
        return _bfloat16()
    if datatype not in _DTYPES:
        raise ValueError(f"unknown datatype {datatype!r}; the protocol has {', '.join(DATATYPES)}")
    return _DTYPES[datatype]


def encode(array: Array) -> Bytes:
    """The elements as raw bytes: a view where the array is contiguous and little-endian, else a copy.

    Raises ValueError for an object array with elements other than bytes and str.
    """
    if array.dtype.kind in "OSU":
        return b"".join(_bytes_elements(array))
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # A byte view: memoryview itself knows neither bfloat16 nor arrays without elements.
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


def decode(raw: Bytes, datatype: str, shape: Sequence[int]) -> Array:
    """An array over raw bytes: a read-only view where they are aligned for the type, else a read-only copy.

    Raises ValueError if the bytes are not as many as datatype and shape ask for.
    """
    dtype = dtype_of(datatype)
    if datatype == BYTES:
        return _decode_bytes(raw, shape)
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) != expected:
        raise ValueError(f"{datatype}{list(shape)} takes {expected} bytes, got {len(raw)}")
    array = np.frombuffer(raw, np.uint8).view(dtype).reshape(shape)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array


def _bytes_elements(array: Array) -> list[bytes]:
    """Lengths and elements, alternating, in row-major order."""
    parts: list[bytes] = []
    for index, element in enumerate(array.reshape(-1).tolist()):
        if isinstance(element, str):
            element = element.encode()
        elif not isinstance(element, bytes):
            raise ValueError(
                f"BYTES takes elements of bytes or str, got {type(element).__name__} at flat index {index}: "
                "convert the array to a numeric dtype or its elements to bytes"
            )
        parts += (_LENGTH.pack(len(element)), element)
    return parts


def _decode_bytes(raw: Bytes, shape: Sequence[int]) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    array = np.empty(count, object)
    offset = 0
    for index in range(count):
        start = offset + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, offset)[0] if start <= len(raw) else start
        if end > len(raw):
            raise ValueError(f"BYTES{list(shape)} ends within element {index}: {len(raw)} bytes are too few")
        array[index] = bytes(raw[start:end])
        offset = end
    if offset != len(raw):
        raise ValueError(f"BYTES{list(shape)} takes {offset} bytes, got {len(raw)}")
    array.flags.writeable = False
    return array.reshape(shape)


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise ValueError("numpy has no bfloat16 of its own: install the package ml_dtypes to use BF16") from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
