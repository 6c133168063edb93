# SPDX-License-Identifier: Apache-2.0
"""Whether a published version is what a script would publish now, and data found inside packages."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training import provenance
from training.catalogue import SCRIPTS, Script
from training.data import describe_data, numbers, package_file, random_split, read_columns
from training.provenance import MissingPackageError, Options, is_published, origin_of
from training.publish import VersionContents, publish_version

SCRIPT = Script("recommender", ("sample",), ("numpy", "rich"))


def publish(contents: VersionContents, options: Options) -> Path:
    card = replace(contents.card, origin=origin_of(SCRIPT, options))
    return publish_version(options.repository, "sample", replace(contents, card=card)).path


def test_published_until_something_changes(
    tmp_path: Path, contents: VersionContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(tmp_path, seed=1)
    assert not is_published(SCRIPT, options)
    publish(contents, options)
    assert is_published(SCRIPT, options)
    assert not is_published(SCRIPT, replace(options, seed=2))
    assert not is_published(SCRIPT, replace(options, quick=True))
    assert not is_published(replace(SCRIPT, models=("sample", "another")), options)
    versions = {"numpy": "0.1", "rich": importlib.metadata.version("rich")}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    assert not is_published(SCRIPT, options)


def test_a_damaged_version_counts_as_missing(tmp_path: Path, contents: VersionContents) -> None:
    options = Options(tmp_path)
    path = publish(contents, options)
    (path / "model.onnx").unlink()
    assert not is_published(SCRIPT, options)


def test_a_version_of_somebody_else_counts_as_missing(tmp_path: Path, contents: VersionContents) -> None:
    options = Options(tmp_path)
    publish(contents, options)
    publish_version(tmp_path, "sample", contents)
    assert not is_published(SCRIPT, options)


def test_the_source_of_another_script_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("recommender.py", "packaged.py", "data.py"):
        (tmp_path / name).write_text("first")
    monkeypatch.setattr(provenance, "_HERE", tmp_path)

    def digest() -> str:
        return origin_of(SCRIPT, Options(tmp_path)).source_sha256

    first = digest()
    (tmp_path / "packaged.py").write_text("second")
    assert digest() == first
    (tmp_path / "data.py").write_text("second")
    shared = digest()
    assert shared != first
    (tmp_path / "recommender.py").write_text("second")
    assert digest() not in (first, shared)


def test_every_package_of_the_catalogue_is_installed() -> None:
    for script in SCRIPTS.values():
        assert set(origin_of(script, Options(Path())).packages) == set(script.packages)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(MissingPackageError, match="no-such-package is not installed; `make train`"):
        package_file("no-such-package", "data.csv")
    with pytest.raises(MissingPackageError, match=r"numpy .* has no file data\.csv"):
        package_file("numpy", "data.csv")


def test_data_digest(tmp_path: Path) -> None:
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, content in zip(files, (b"x\n", b"y\n"), strict=True):
        path.write_bytes(content)
    source = describe_data("d", "numpy", files, licence="l", training_rows=3, holdout_rows=1, split="s")
    assert source.sha256 == hashlib.sha256(b"x\ny\n").hexdigest()
    assert source.package == f"numpy {np.__version__}"
    assert source.files == ("a.csv", "b.csv")


def test_read_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name,age\n"Braund, Mr.",22\nx,\n')
    columns = read_columns(path)
    assert columns == {"name": ["Braund, Mr.", "x"], "age": ["22", ""]}
    np.testing.assert_array_equal(numbers(columns["age"]), np.array([22, np.nan], dtype=np.float32))
    path.write_text("a,b\n1\n")
    with pytest.raises(ValueError, match="zip"):
        read_columns(path)


def test_split_is_a_partition_that_the_seed_decides() -> None:
    training, holdout = random_split(100, 0.2, seed=3)
    assert len(holdout) == 20
    assert sorted([*training, *holdout]) == list(range(100))
    np.testing.assert_array_equal(random_split(100, 0.2, seed=3)[1], holdout)
    assert set(random_split(100, 0.2, seed=4)[1]) != set(holdout)
