# SPDX-License-Identifier: Apache-2.0
"""Build the compiled parts of the bench, one call of g++ for each."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.machine import ROOT

_SOURCES = ROOT / "bench"
_BUILD = ROOT / "build" / "bench"
_ORT_INCLUDE = ROOT / ".cache" / "onnxruntime" / "include"


class BuildError(Exception):
    """A part does not compile."""


@dataclass(frozen=True)
class Part:
    """One source below bench/, without its .cc; what g++ is told besides, and the packages of Debian it needs.

    `file`: what is built, in build/bench; by default it is named after the source.
    """

    source: str
    options: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    file: str = ""


H2_FLOOR = Part("floors/h2_floor", ("-lnghttp2",), ("libnghttp2-dev",))
HOT_PATH_FLOOR = Part("floors/hot_path_floor", ("-lnghttp2", "-ldl", "-pthread"), ("libnghttp2-dev",))
# Debian's libgrpc++ uses absl's locks in its headers and does not bring their library.
GRPC_CPP_ECHO = Part(
    "floors/grpc_cpp_echo", ("-lgrpc++", "-lgrpc", "-lgpr", "-labsl_synchronization"), ("libgrpc++-dev",)
)
MEMCPY_FLOOR = Part("floors/memcpy_floor")
OPEN_LOOP = Part("load/open_loop", ("-lnghttp2",), ("libnghttp2-dev",))
NAMED_NGHTTP2 = Part(
    "load/named_nghttp2",
    (
        *("-shared", "-fPIC", "-Wl,-soname,libnghttp2.so.14", "-Wl,-Bsymbolic"),
        *("-Wl,--whole-archive", "-l:libnghttp2.a", "-Wl,--no-whole-archive"),
    ),
    ("libnghttp2-dev",),
    # In a folder that can be searched for this library alone.
    "named/libnghttp2.so.14",
)
TRITON_MLP_BACKEND = Part("peers/triton_mlp_backend", ("-shared", "-fPIC", "-ldl"))


def build(part: Part) -> Path:
    """The program, or library, of `part`, built if its sources are newer. Raises BuildError."""
    source, program = _SOURCES / f"{part.source}.cc", _BUILD / (part.file or Path(part.source).name)
    newest = max(path.stat().st_mtime for path in (source, *_SOURCES.glob("floors/*.h")))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-O2", "-std=c++20", "-isystem", str(_ORT_INCLUDE), str(source), "-o", str(program)]
    try:
        process = subprocess.run([*command, *part.options], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("g++ is missing; on Debian: apt-get install g++") from error
    if process.returncode != 0:
        needs = ", ".join(("g++", *part.packages, str(_ORT_INCLUDE)))
        raise BuildError(f"{' '.join(command)} failed (needs {needs}):\n{process.stderr}")
    return program


def build_with_cmake(name: str, *options: str, target: str = "all") -> Path:
    """The project itself, or `target` of it, optimised, in build/<name>; returns that folder. Raises BuildError."""
    folder = ROOT / "build" / name
    tools = Path(sys.executable).parent  # cmake and ninja come with the other packages
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        [*configure, f"-DGRISTMILL_PYTHON={sys.executable}", *options],
        ["cmake", "--build", str(folder), "--target", target, "--parallel", str(os.cpu_count() or 1)],
    ):
        step = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if step.returncode != 0:
            raise BuildError(f"{' '.join(command)} failed:\n{step.stdout}{step.stderr}")
    return folder
