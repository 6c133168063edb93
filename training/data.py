# SPDX-License-Identifier: Apache-2.0
"""Data that comes inside Python packages: finding it without importing the package, its digest, its split."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.provenance import MissingPackageError, package_version
from training.publish import DataSource


def package_file(distribution: str, name: str) -> Path:
    """The path of the file `name` (as in the distribution's list of files) of an installed distribution.

    Raises MissingPackageError if the distribution is not installed, or has no such file in its installed version.
    """
    version = package_version(distribution)
    for file in importlib.metadata.files(distribution) or ():
        if file.as_posix() == name:
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    raise MissingPackageError(f"{distribution} {version} has no file {name}; `make train` installs a version that has")


def describe_data(
    name: str,
    distribution: str,
    files: Sequence[Path],
    *,
    licence: str,
    training_rows: int,
    holdout_rows: int,
    split: str,
) -> DataSource:
    """The entry of the model card for data read from `files` of `distribution`."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return DataSource(
        name=name,
        package=f"{distribution} {package_version(distribution)}",
        licence=licence,
        files=tuple(path.name for path in files),
        sha256=digest.hexdigest(),
        training_rows=training_rows,
        holdout_rows=holdout_rows,
        split=split,
    )


def read_columns(path: Path, delimiter: str = ",") -> dict[str, list[str]]:
    """A delimited text file with a header, as one list of strings per column. Raises ValueError for a ragged one."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter=delimiter)
    columns = list(zip(*rows, strict=True))
    return {name: list(column) for name, column in zip(header, columns, strict=True)}


def numbers(column: Sequence[str]) -> np.ndarray:
    """A column as float32; an empty field is NaN."""
    return np.array([float(value) if value else np.nan for value in column], dtype=np.float32)


def random_split(rows: int, holdout_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (training, hold-out), shuffled by the seed. Each row is in exactly one of them."""
    order = np.random.default_rng(seed).permutation(rows)
    holdout_rows = max(1, round(rows * holdout_share))
    return order[holdout_rows:], order[:holdout_rows]
