# SPDX-License-Identifier: Apache-2.0
"""What a figure depends on besides the code: the machine, the commit, the versions of the parts."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What makes the server and the bench what they are; written results are not part of it.
_MEASURED = ("CMakeLists.txt", "csrc", "server", "requirements", "bench", ":!bench/results")
_PACKAGES = ("grpcio", "numpy", "nvidia-pytriton", "onnxruntime", "protobuf", "uvloop")
_LIBRARIES = ("libgrpc++-dev", "libnghttp2-dev")


def describe_machine() -> dict[str, str | int]:
    """CPU model, cores, memory in GiB, kernel."""
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": match[1] if match else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(memory_bytes / 2**30),
        "kernel": platform.release(),
    }


def describe_commit() -> str:
    """The commit's hash, with "+changes" if tracked files of the server or the bench differ from it."""
    commit = _first_line("git", "rev-parse", "HEAD")
    changed = _first_line("git", "status", "--porcelain", "--untracked-files=no", "--", *_MEASURED)
    return commit + ("+changes" if changed else "")


def describe_versions() -> dict[str, str]:
    """Of the Python, the packages, libraries and tools that take part."""
    packages = {package: _package_version(package) for package in _PACKAGES}
    libraries = {name: _first_line("dpkg-query", "--show", "--showformat=${Version}", name) for name in _LIBRARIES}
    tools = {"h2load": _first_line("h2load", "--version"), "g++": _first_line("g++", "-dumpfullversion")}
    return {"python": platform.python_version(), **packages, **libraries, **tools}


def load_average() -> float:
    """Processes that wanted a core during the last minute: above 0.5 before a bench, its figures are disturbed."""
    return round(os.getloadavg()[0], 2)


def onnxruntime_library() -> Path:
    """The shared library of the installed onnxruntime package."""
    package = find_spec("onnxruntime")
    assert package is not None
    assert package.origin is not None
    return next(Path(package.origin).parent.glob("capi/libonnxruntime.so*"))


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _first_line(*command: str) -> str:
    try:
        output = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout
    except FileNotFoundError:
        return "missing"
    return output.partition("\n")[0]
