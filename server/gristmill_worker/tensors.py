# SPDX-License-Identifier: Apache-2.0
"""Tensors between numpy and the bytes of the protocol."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: By number, as in csrc/core/data_type.h: (the protocol's name, numpy's type). numpy has no BF16: its bits, as UINT16.
DATATYPES: tuple[tuple[str, Any], ...] = (
    ("INVALID", None),
    ("BOOL", np.bool_),
    ("UINT8", np.uint8),
    ("UINT16", np.uint16),
    ("UINT32", np.uint32),
    ("UINT64", np.uint64),
    ("INT8", np.int8),
    ("INT16", np.int16),
    ("INT32", np.int32),
    ("INT64", np.int64),
    ("FP16", np.float16),
    ("FP32", np.float32),
    ("FP64", np.float64),
    ("BYTES", np.object_),
    ("BF16", np.uint16),
)
BYTES = 13
BF16 = 14
NUMBERS = {name: number for number, (name, _) in enumerate(DATATYPES)}
_NUMBER_OF_TYPE = {np.dtype(dtype): number for number, (_, dtype) in enumerate(DATATYPES) if number not in (0, BF16)}

_LENGTH = struct.Struct("<I")


def datatype_of(array: Array) -> int:
    """The number of an array's type. Raises TypeError for one that the protocol does not have."""
    if array.dtype.kind in "SU":
        return BYTES
    if array.dtype.name == "bfloat16":
        return BF16
    number = _NUMBER_OF_TYPE.get(array.dtype.newbyteorder("="))
    if number is None:
        raise TypeError(f"an array of {array.dtype} cannot be a tensor; expected one of numbers, booleans or bytes")
    return number


def decode_elements(raw: memoryview, shape: tuple[int, ...]) -> Array:
    """An array of bytes objects from elements with their lengths."""
    elements = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=np.object_)
    at = 0
    for index in range(len(elements)):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        elements[index] = bytes(raw[at : at + length])
        at += length
    return elements.reshape(shape)


def encode_elements(array: Array) -> bytes:
    """The reverse; texts become UTF-8. Raises TypeError for anything but bytes and texts."""
    parts: list[bytes] = []
    for element in array.ravel():
        if isinstance(element, str):
            element = element.encode()
        if not isinstance(element, (bytes, bytearray, memoryview)):
            raise TypeError(f"expected bytes or text in an array of objects, got {type(element).__name__}")
        parts += (_LENGTH.pack(len(element)), bytes(element))
    return b"".join(parts)
