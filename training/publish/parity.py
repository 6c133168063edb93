# SPDX-License-Identifier: Apache-2.0
"""Proof that an exported model predicts what its framework predicts, for 1 row, 2 rows and all rows given.

Three sizes, because an export that has burnt in its batch size, or sums over the batch, is right for one of them only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from training.publish.errors import ParityError

#: Arrays by tensor name, rows first.
Arrays = Mapping[str, np.ndarray]
#: One batch in, its predictions out.
Predict = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Tolerance:
    """A float output may differ from the expected value e by at most `absolute` + `relative` * |e|.

    Integers, booleans and strings must be equal.
    """

    absolute: float
    relative: float = 0.0


@dataclass(frozen=True)
class ParityProof:
    """What was compared. `largest_error` is the largest absolute difference of each output, in its own unit."""

    file: str
    batch_rows: tuple[int, ...]
    tolerance: Tolerance
    largest_error: Mapping[str, float]


def prove_parity(file: str, exported: Predict, reference: Predict, inputs: Arrays, tolerance: Tolerance) -> ParityProof:
    """Compare `exported` (the model in `file`) with `reference` on the first 1 row, 2 rows and all rows of `inputs`.

    Every output must have one row per input row. Raises ParityError, with the numbers, at the first that differs.
    """
    total = min(len(array) for array in inputs.values())
    if total < 3 or any(len(array) != total for array in inputs.values()):
        lengths = {name: len(array) for name, array in inputs.items()}
        raise ParityError(f"{file}: expected at least 3 rows, and as many in each input, to compare; got {lengths}")
    largest: dict[str, float] = {}
    sizes = (1, 2, total)
    for rows in sizes:
        batch = {name: array[:rows] for name, array in inputs.items()}
        actual, expected = exported(batch), reference(batch)
        if set(actual) != set(expected):
            raise ParityError(
                f"{file}: expected the outputs {sorted(expected)}, the exported model has {sorted(actual)}"
            )
        for name in expected:
            error = _compare(f"{file}, output '{name}', {rows} rows", actual[name], expected[name], rows, tolerance)
            largest[name] = max(error, largest.get(name, 0.0))
    return ParityProof(file, sizes, tolerance, largest)


def _compare(where: str, actual: np.ndarray, expected: np.ndarray, rows: int, tolerance: Tolerance) -> float:
    """The largest absolute difference, 0 for what is no float."""
    if actual.shape[:1] != (rows,):
        raise ParityError(f"{where}: expected the batch as first dimension, got shape {list(actual.shape)}")
    if actual.shape != expected.shape or actual.dtype.kind != expected.dtype.kind:
        raise ParityError(
            f"{where}: expected {expected.dtype} of shape {list(expected.shape)}, "
            f"got {actual.dtype} of shape {list(actual.shape)}"
        )
    if expected.dtype.kind != "f":
        differing = int(np.count_nonzero(actual != expected))
        if differing:
            raise ParityError(f"{where}: {differing} of {expected.size} values differ; {expected.dtype} must be equal")
        return 0.0
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    allowed = tolerance.absolute + tolerance.relative * np.abs(expected.astype(np.float64))
    # A NaN on either side compares as "not within", and so fails.
    failing = ~(error <= allowed)
    if failing.any():
        worst = np.unravel_index(int(np.argmax(np.nan_to_num(error - allowed, nan=np.inf))), error.shape)
        raise ParityError(
            f"{where}: {int(failing.sum())} of {error.size} values differ by more than {tolerance.absolute:g} + "
            f"{tolerance.relative:g} * |expected|; the worst at {[int(i) for i in worst]} is {actual[worst]:.9g}, "
            f"expected {expected[worst]:.9g}"
        )
    return float(error.max(initial=0.0))
