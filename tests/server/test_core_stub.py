# SPDX-License-Identifier: Apache-2.0
"""The stub of the compiled module says what the module has, no more and no less."""

from __future__ import annotations

import ast
from pathlib import Path

import gristmill
from gristmill import _core

STUB = Path(gristmill.__file__).with_name("_core.pyi")

#: Types of dictionaries, which exist for the type checker only.
TYPED_DICTS = {"Duration", "BatchStatistics", "Statistics"}


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_stub_matches_the_module() -> None:
    classes = {node.name: node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)}
    assert set(classes) - TYPED_DICTS == public(dir(_core))
    for name in set(classes) - TYPED_DICTS:
        stubbed = public([node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)])
        inherited = set(dir(Exception)) if name == "CoreError" else set()
        assert stubbed == public(dir(getattr(_core, name))) - inherited, name


def test_statistics_have_the_keys_that_the_stub_names() -> None:
    stub = ast.parse(STUB.read_text())
    statistics = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "Statistics")
    fields = {node.target.id for node in statistics.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert {"queue", "batch_stats", "last_inference_ms"} < fields
