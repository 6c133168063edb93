# SPDX-License-Identifier: Apache-2.0
"""The stub of the compiled module says what the module has, no more and no less."""

from __future__ import annotations

import ast
from pathlib import Path

import gristmill
from gristmill import _core

STUB = Path(gristmill.__file__).with_name("_core.pyi")

#: Types of dictionaries, which exist for the type checker only.
TYPED_DICTS = {"BatchDecision", "Duration", "BatchStatistics", "Statistics"}


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_stub_matches_the_module() -> None:
    body = ast.parse(STUB.read_text()).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    constants = {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert public([*(set(classes) - TYPED_DICTS), *functions, *constants]) == public(dir(_core))
    for name in set(classes) - TYPED_DICTS:
        stubbed = public([node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)])
        inherited = set(dir(Exception)) if name == "CoreError" else set()
        assert stubbed == public(dir(getattr(_core, name))) - inherited, name


def keys_of(name: str) -> set[str]:
    """The keys of a TypedDict in the stub."""
    typed = next(
        node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        node.target.id for node in typed.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_statistics_have_the_keys_that_the_stub_names(tmp_path: Path) -> None:
    path = tmp_path / "model.sim"
    path.write_text("input X FP32 -1 1\noutput Y FP32 -1 1 = identity X\n")
    engine = _core.Engine(plugin_directory=str(Path(_core.__file__).with_name("backends")))
    opened = engine.open_model(backend="sim", path=str(path))
    inputs, outputs = [_core.TensorSpec("X", "FP32", [1])], [_core.TensorSpec("Y", "FP32", [1])]
    options = _core.ModelOptions(name="m", version=1, max_batch_size=2, inputs=inputs, outputs=outputs)
    servable = engine.load(opened, options)
    statistics = servable.statistics()
    servable.drain()
    assert set(statistics) == keys_of("Statistics")
    assert set(statistics["queue"]) == keys_of("Duration")
