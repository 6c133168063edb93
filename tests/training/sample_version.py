# SPDX-License-Identifier: Apache-2.0
"""A small version, and a check of published ones. Imported by tests and by the process that they kill."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from training.publish import (
    DataSource,
    Examples,
    ModelCard,
    Origin,
    ParityProof,
    Tensor,
    Tolerance,
    VersionContents,
)

OTHER_FILES = {"model_card.json", "MODEL_CARD.md", "expected.npz", "manifest.json"}


def make_card() -> ModelCard:
    return ModelCard(
        model="sample",
        summary="Doubles a number.",
        licence="Apache-2.0",
        origin=Origin("training.sample", "ab" * 32, {"numpy": "2.0"}, {"seed": 3, "quick": False}),
        inputs=(Tensor("x", "FP32", (-1, 2), "numbers"), Tensor("word", "BYTES", (-1, 1), "a | b")),
        outputs=(Tensor("y", "FP32", (-1, 2), "twice the numbers"),),
        metrics={"auc": 0.91234},
        baseline="a coin",
        baseline_metrics={"auc": 0.5},
        limitations="Knows nothing else.",
        data=DataSource("numbers", "numpy 2.0", "BSD-3-Clause", ("a.csv",), "cd" * 32, 80, 20, "random, seed 3"),
        parameters={"factor": 2},
    )


def make_contents(model: bytes) -> VersionContents:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    words = np.array([["a"], ["b"], ["ä"]])
    proof = ParityProof("model.onnx", (1, 2, 3), Tolerance(1e-5, 1e-4), {"y": 1e-7})
    return VersionContents({"model.onnx": model}, make_card(), Examples({"x": x, "word": words}, {"y": 2 * x}), [proof])


def visible_versions(model: Path) -> list[int]:
    return sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal()) if model.is_dir() else []


def assert_whole(version: Path) -> None:
    manifest = json.loads((version / "manifest.json").read_bytes())
    assert manifest["format"] == 1
    assert set(manifest["files"]) == {path.name for path in version.iterdir()} - {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = (version / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}, name
