# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from gristmill.repository.errors import RepositoryError
from gristmill.repository.layout import find_model, scan, verify

from .fakes import add_config, add_version


def test_scan_finds_models_versions_and_configurations(tmp_path: Path) -> None:
    add_version(tmp_path, "a", 1)
    add_version(tmp_path, "a", 12, manifest=True)
    add_config(tmp_path, "b", "max_batch_size: 4")
    (tmp_path / "README.md").write_text("not a model")
    models = scan([tmp_path])
    assert list(models) == ["a", "b"]
    assert sorted(models["a"].versions) == [1, 12]
    assert models["a"].versions[1].manifest is None
    assert models["a"].versions[12].manifest is not None
    assert all(version.problem is None for version in models["a"].versions.values())
    assert models["a"].config_path is None
    assert models["b"].config_path == tmp_path / "b" / "config.pbtxt"


def test_hidden_and_other_directories_are_no_versions(tmp_path: Path) -> None:
    for name in (".staging-7", ".7", "docs", "v1", "1.5", "-1", "٣"):
        add_version(tmp_path, "a", name)
    add_version(tmp_path, ".hidden", 1)
    models = scan([tmp_path])
    assert list(models) == ["a"]
    assert models["a"].versions == {}


@pytest.mark.parametrize("name", ["0", "007", "9223372036854775808"])
def test_integers_that_cannot_be_versions_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    add_version(tmp_path, "a", name)
    model = scan([tmp_path])["a"]
    assert model.versions == {}
    assert f"directory '{name}' of model 'a'" in model.ignored[name]
    assert "from 1 to" in model.ignored[name]


def test_version_is_incomplete_until_every_listed_file_has_its_size(tmp_path: Path) -> None:
    directory = add_version(tmp_path, "a", 1, "weights", manifest=True)
    (directory / "model.sim").unlink()
    assert "lists 'model.sim', which is not there" in (scan([tmp_path])["a"].versions[1].problem or "")
    (directory / "model.sim").write_text("wei")
    assert "with 7 bytes, it has 3" in (scan([tmp_path])["a"].versions[1].problem or "")
    (directory / "model.sim").write_text("weights")
    assert scan([tmp_path])["a"].versions[1].problem is None


def test_files_in_subdirectories_belong_to_the_version(tmp_path: Path) -> None:
    directory = add_version(tmp_path, "a", 1)
    (directory / "data").mkdir()
    (directory / "data" / "part").write_text("12")
    assert [name for name, _, _ in scan([tmp_path])["a"].versions[1].listing] == ["data/part", "model.sim"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ("[]", "got 'list'"),
        ({"format": 2, "files": {}}, "got 2"),
        ({"format": 1, "files": {}}, "at least one file"),
        ({"format": 1, "files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, "plain path"),
        ({"format": 1, "files": {"/x": {"sha256": "0" * 64, "bytes": 1}}}, "plain path"),
        ({"format": 1, "files": {"x": {"sha256": "zz", "bytes": 1}}}, "64 lower-case hexadecimal"),
        ({"format": 1, "files": {"x": {"sha256": "0" * 64, "bytes": -1}}}, "got -1"),
        ({"format": 1, "files": {"x": {"sha256": "0" * 64, "bytes": True}}}, "got True"),
        ({"format": 1, "files": {"x": 3}}, "got None"),
    ],
)
def test_malformed_manifest_says_what_is_wrong(tmp_path: Path, document: object, message: str) -> None:
    directory = add_version(tmp_path, "a", 1)
    text = document if isinstance(document, str) else json.dumps(document)
    (directory / "manifest.json").write_text(text)
    problem = scan([tmp_path])["a"].versions[1].problem
    assert problem is not None
    assert message in problem
    assert "manifest.json" in problem


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    directory = add_version(tmp_path, "a", 1, "weights", manifest=True)
    verify(scan([tmp_path])["a"].versions[1])
    (directory / "model.sim").write_text("weighty")  # of the same size
    version = scan([tmp_path])["a"].versions[1]
    assert version.problem is None
    with pytest.raises(RepositoryError, match=r"model\.sim is damaged") as error:
        verify(version)
    assert error.value.code is grpc.StatusCode.DATA_LOSS


def test_model_in_two_repositories_is_refused(tmp_path: Path) -> None:
    add_version(tmp_path / "one", "a", 1)
    add_version(tmp_path / "two", "a", 2)
    add_version(tmp_path / "two", "b", 1)
    models = scan([tmp_path / "one", tmp_path / "two"])
    assert "is in two repositories" in (models["a"].problem or "")
    assert models["b"].problem is None


def test_unreadable_repository_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot read model repository") as error:
        scan([tmp_path / "gone"])
    assert error.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "../a", "nope"])
def test_find_model_stays_inside_the_repository(tmp_path: Path, name: str) -> None:
    add_version(tmp_path, "a", 1)
    add_version(tmp_path, "repo", 1)
    assert find_model([tmp_path / "repo"], name) is None


def test_listing_changes_with_content(tmp_path: Path) -> None:
    directory = add_version(tmp_path, "a", 1)
    before = scan([tmp_path])["a"]
    assert scan([tmp_path])["a"] == before
    (directory / "more").write_text("x")
    assert scan([tmp_path])["a"] != before
