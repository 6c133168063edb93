# SPDX-License-Identifier: Apache-2.0
"""Messages to and from the server: a socket that rings, and memory that both have mapped."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Callable

from gristmill_worker.messages import DOORBELL, Arena, Kind, Reader, Writer

# What stays mapped between batches.
_KEPT_BYTES = 64 << 20


class ServerGoneError(Exception):
    """The server has closed the channel."""


class Channel:
    """One end of the channel. Anybody may send; one thread at a time receives, and says `have_read` after each message.

    `copies`: arrays that are received are copies, and the next message to the server lets go of what has been read;
    otherwise they view the server's memory until a message that `releases` it.
    """

    def __init__(self, socket_fd: int, incoming_fd: int, outgoing_fd: int, copies: bool = False) -> None:
        """Takes the descriptors over; their memory is mapped whole."""
        self._socket = socket.socket(fileno=socket_fd)
        self._incoming = memoryview(mmap.mmap(incoming_fd, os.fstat(incoming_fd).st_size))
        self._outgoing_map = mmap.mmap(outgoing_fd, os.fstat(outgoing_fd).st_size)
        self._arena = Arena(memoryview(self._outgoing_map))
        self._lock = threading.Lock()
        self._unreleased = 0  # messages sent that the server has not done with
        self._read = 0  # messages read that the server has not been told of
        self.copies = copies

    def fileno(self) -> int:
        """For whoever waits for messages."""
        return self._socket.fileno()

    def receive(self) -> tuple[Kind, Reader]:
        """Wait for a message. Raises ServerGoneError."""
        doorbell = self._socket.recv(DOORBELL.size)
        if not doorbell:
            raise ServerGoneError
        kind, released, offset, size = DOORBELL.unpack(doorbell)
        with self._lock:
            self._unreleased -= released
            if self._unreleased == 0:
                self._reset()
        return Kind(kind), Reader(self._incoming, offset, size, self.copies)

    def have_read(self) -> None:
        """The last message's body is not needed any more."""
        with self._lock:
            self._read += 1

    def send(self, kind: Kind, write: Callable[[Writer], None], *, releases: bool = False) -> None:
        """Send what `write` writes. `releases`: nothing views what was received before.

        Raises what `write` raises, with nothing sent, and ServerGoneError.
        """
        with self._lock:
            used = self._arena.used
            try:
                writer = Writer(self._arena)
                write(writer)
                offset, size = self._arena.put(writer.body())
            except BaseException:
                self._arena.used = used
                raise
            released = 0
            if releases or self.copies:
                released, self._read = self._read, 0
            self._unreleased += 1
            try:
                self._socket.send(DOORBELL.pack(kind, released, offset, size))
            except OSError as error:
                raise ServerGoneError from error

    def _reset(self) -> None:
        if self._arena.used > _KEPT_BYTES:
            start = _KEPT_BYTES
            length = -(-(self._arena.used - start) // mmap.PAGESIZE) * mmap.PAGESIZE
            self._outgoing_map.madvise(mmap.MADV_REMOVE, start, min(length, len(self._outgoing_map) - start))
        self._arena.reset()
