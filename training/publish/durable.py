# SPDX-License-Identifier: Apache-2.0
"""File system steps whose effect survives a crash once they return. All block on the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_file(path: Path, content: bytes | Path) -> None:
    """Create `path` with these bytes, or with those of another file. Raises FileExistsError if it is there."""
    with path.open("xb") as target:
        if isinstance(content, Path):
            with content.open("rb") as source:
                shutil.copyfileobj(source, target)
        else:
            target.write(content)
        target.flush()
        os.fsync(target.fileno())


def make_directory(path: Path) -> None:
    """Create `path` and its missing parents; nothing to do if it is there."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
