# SPDX-License-Identifier: Apache-2.0
"""Hidden directories in which a version is prepared, and the removal of those whose publisher has died.

A publisher holds a file lock on its staging directory, which the kernel releases when the process ends, however it
ends. So a staging directory that can be locked by somebody else is stale. Safe between processes and threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

STAGING_PREFIX = ".staging-"


@contextlib.contextmanager
def staging_directory(parent: Path) -> Iterator[Path]:
    """A fresh, locked, hidden directory in `parent`; removed with all that is left in it at the end."""
    while True:
        path = parent / f"{STAGING_PREFIX}{secrets.token_hex(8)}"
        path.mkdir()
        descriptor = _lock(path)
        if descriptor is not None:
            break  # otherwise a cleaner came between the two calls and took it for a stale one
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def remove_stale(parent: Path) -> None:
    """Remove the staging directories in `parent` that no living publisher holds."""
    for path in parent.glob(f"{STAGING_PREFIX}*"):
        descriptor = _lock(path)
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """The descriptor that holds the lock on `path`, or None if another has it or the directory is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.stat()  # removed between opening and locking?
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    return descriptor
