# SPDX-License-Identifier: Apache-2.0
"""The list of a version's files, by which a reader can tell a whole version from a damaged one.

{"format": 1, "files": {"model.onnx": {"sha256": "<64 hexadecimal digits>", "bytes": 123}}}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1


def build_manifest(directory: Path) -> bytes:
    """The manifest of every file in `directory`, as the bytes of its JSON document."""
    files = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.name] = {"sha256": digest, "bytes": path.stat().st_size}
    return (json.dumps({"format": MANIFEST_FORMAT, "files": files}, indent=2) + "\n").encode()


def is_whole(directory: Path) -> bool:
    """Whether every file that the manifest lists is there with the listed size. Reads no file but the manifest."""
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_bytes())
        return all((directory / name).stat().st_size == entry["bytes"] for name, entry in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
