# SPDX-License-Identifier: Apache-2.0
"""Build the compiled floors, one call of g++ for each."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.machine import ROOT

_SOURCES = ROOT / "bench" / "floors"
_BUILD = ROOT / "build" / "bench"
_ORT_INCLUDE = ROOT / ".cache" / "onnxruntime" / "include"
_LIBRARIES = ("-lnghttp2", "-ldl", "-pthread")


class BuildError(Exception):
    """A floor does not compile."""


def build_floor(name: str) -> Path:
    """The program of bench/floors/<name>.cc, built if its sources are newer. Raises BuildError."""
    source, program = _SOURCES / f"{name}.cc", _BUILD / name
    newest = max(path.stat().st_mtime for path in (source, *_SOURCES.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    _BUILD.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-O2", "-std=c++20", "-isystem", str(_ORT_INCLUDE), str(source), "-o", str(program), *_LIBRARIES]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("g++ is missing; on Debian: apt-get install g++ libnghttp2-dev") from error
    if process.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed (needs libnghttp2-dev and {_ORT_INCLUDE}):\n{process.stderr}")
    return program
