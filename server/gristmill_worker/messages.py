# SPDX-License-Identifier: Apache-2.0
"""The bodies of messages to and from the server; csrc/backends/python/worker_messages.h says what is in them."""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

from gristmill_worker.tensors import BYTES, DATATYPES, Array, datatype_of, decode_elements, encode_elements

DOORBELL = struct.Struct("<IIQQ")

_ALIGNMENT = 64


class Kind(IntEnum):
    """Of a message."""

    INITIALIZE = 1
    READY = 2
    EXECUTE = 3
    ANSWERS = 4
    CALL = 5
    REPLY = 6
    STREAM = 7
    CANCEL = 8
    FINALIZE = 9
    RELEASE = 10


class NoRoomError(Exception):
    """The memory shared with the server is full."""


class Arena:
    """Memory to write messages into, forward until `reset`."""

    def __init__(self, memory: memoryview) -> None:
        """Of any size."""
        self._memory = memory
        self._bytes = np.frombuffer(memory, np.uint8)
        self.used = 0

    def reset(self) -> None:
        """Begin again."""
        self.used = 0

    def put(self, data: bytes | Array) -> tuple[int, int]:
        """Copy bytes, or an array's, in. Returns offset and size. Raises NoRoomError."""
        size = data.nbytes if isinstance(data, np.ndarray) else len(data)
        offset = self.used
        if size > len(self._memory) - offset:
            raise NoRoomError(f"{size} bytes do not fit into the memory shared with the server")
        if isinstance(data, np.ndarray):
            target = self._bytes[offset : offset + size].view(data.dtype).reshape(data.shape)
            np.copyto(target, data)
        else:
            self._memory[offset : offset + size] = data
        self.used = min(offset + size + -size % _ALIGNMENT, len(self._memory))
        return offset, size


class Writer:
    """Builds a body; the data of tensors goes straight into the arena."""

    def __init__(self, arena: Arena) -> None:
        """The body itself is not in the arena until somebody puts it there."""
        self._arena = arena
        self._parts: list[bytes] = []

    def put(self, layout: str, *values: int) -> None:
        """Numbers, laid out as struct has it."""
        self._parts.append(struct.pack("<" + layout, *values))

    def put_text(self, text: str | bytes) -> None:
        """A text with its length."""
        data = text.encode() if isinstance(text, str) else text
        self.put("I", len(data))
        self._parts.append(data)

    def put_tensor(self, array: Array) -> None:
        """Raises TypeError or ValueError for what cannot be sent."""
        number = datatype_of(array)
        if array.ndim > 8:
            raise ValueError(f"a tensor has at most 8 dimensions, got {array.ndim}")
        offset, size = self._arena.put(encode_elements(array) if number == BYTES else array)
        self.put(f"BB{array.ndim}qQQ", number, array.ndim, *array.shape, offset, size)

    def body(self) -> bytes:
        """What has been put."""
        return b"".join(self._parts)


class Reader:
    """Takes a body apart. Arrays view the memory unless `copies`."""

    def __init__(self, memory: memoryview, offset: int, size: int, copies: bool) -> None:
        """The body is `size` bytes at `offset` of the memory."""
        self._memory = memory
        self._body = memory[offset : offset + size]
        self._copies = copies
        self._at = 0

    def get(self, layout: str) -> tuple[int, ...]:
        """Numbers, laid out as struct has it."""
        values = struct.unpack_from("<" + layout, self._body, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def number(self, layout: str) -> int:
        """One number."""
        return self.get(layout)[0]

    def text(self) -> str:
        """A text with its length."""
        size = self.number("I")
        self._at += size
        return str(self._body[self._at - size : self._at], "utf-8", "replace")

    def tensor(self) -> tuple[Array, int]:
        """Its elements, and the number of its type."""
        number, rank = self.get("BB")
        *shape, offset, size = self.get(f"{rank}qQQ")
        if number == BYTES:
            return decode_elements(self._memory[offset : offset + size], tuple(shape)), number
        dtype = np.dtype(DATATYPES[number][1])
        array = np.frombuffer(self._memory, dtype, size // dtype.itemsize, offset).reshape(shape)
        return (array.copy() if self._copies else array), number
