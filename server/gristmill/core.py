# SPDX-License-Identifier: Apache-2.0
"""Find what the compiled core needs from the environment, and start it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gristmill._core import Engine


class CoreMissingError(Exception):
    """The compiled module cannot be imported."""


def create_engine(
    *,
    intra_op_threads: int = 0,
    max_answer_bytes: int = 0,
    response_cache_bytes: int = 0,
    resources: Mapping[str, int] | None = None,
) -> Engine:
    """An engine with its plugins, and the runtimes that are installed, in place.

    intra_op_threads: 0 is the backend's choice. max_answer_bytes: of all answers not sent yet; 0 is no limit.
    response_cache_bytes: of all answers that are kept; 0 keeps none. resources: by name, what models share.
    A backend whose runtime is missing says so when a model needs it. Raises CoreMissingError.
    """
    try:
        from gristmill import _core
    except ImportError as error:
        raise CoreMissingError(f"the compiled core is missing ({error}); build it with: pip install .") from error
    onnxruntime: dict[str, str] = {}
    library = find_onnxruntime()
    if library is not None:
        onnxruntime["library_path"] = str(library)
    if intra_op_threads > 0:
        onnxruntime["intra_op_threads"] = str(intra_op_threads)
    plugins = Path(_core.__file__).parent / "backends"
    python, worker = python_worker()
    return _core.Engine(
        plugin_directory=str(plugins),
        backend_parameters={"onnxruntime": onnxruntime, "python": {"python": python, "worker": worker}},
        max_answer_bytes=max_answer_bytes,
        response_cache_bytes=response_cache_bytes,
        resources=resources or {},
    )


def python_worker() -> tuple[str, str]:
    """The interpreter and the program that run models written in Python."""
    spec = find_spec("gristmill_worker")
    if spec is None or spec.origin is None:
        raise CoreMissingError("the package gristmill_worker is missing; build it with: pip install .")
    return sys.executable, str(Path(spec.origin).parent)


def find_onnxruntime() -> Path | None:
    """The shared library in the installed onnxruntime package, found without importing it; None if there is none."""
    spec = find_spec("onnxruntime")
    for location in (spec.submodule_search_locations or []) if spec else []:
        libraries = sorted(Path(location, "capi").glob("libonnxruntime.so*"))
        if libraries:
            return libraries[0]
    return None
