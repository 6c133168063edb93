# SPDX-License-Identifier: Apache-2.0
"""What is published, under which number, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.sample_version import OTHER_FILES, assert_whole, make_contents, visible_versions
from training.publish import (
    ConfigConflictError,
    Examples,
    PublishError,
    VersionContents,
    VersionExistsError,
    publish_version,
)
from training.publish.manifest import is_whole
from training.publish.publisher import latest_version
from training.publish.staging import remove_stale, staging_directory

ROOT = Path(__file__).parents[2]


def test_a_version_has_all_its_files_in_the_manifest(tmp_path: Path, contents: VersionContents) -> None:
    source = tmp_path / "source.txt"
    source.write_bytes(b"cat\ndog\n")
    contents = replace(contents, files={**contents.files, "labels.txt": source})
    published = publish_version(tmp_path / "deep" / "repo", "sample", contents)
    assert (published.model, published.version) == ("sample", 1)
    assert published.path == tmp_path / "deep" / "repo" / "sample" / "1"
    assert {path.name for path in published.path.iterdir()} == {"model.onnx", "labels.txt"} | OTHER_FILES
    assert (published.path / "labels.txt").read_bytes() == b"cat\ndog\n"
    assert_whole(published.path)
    assert is_whole(published.path)
    assert [path.name for path in published.path.parent.iterdir()] == ["1"]


def test_examples_load_without_pickle(tmp_path: Path, contents: VersionContents) -> None:
    path = publish_version(tmp_path, "sample", contents).path
    with np.load(path / "expected.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"input.x", "input.word", "output.y"}
        np.testing.assert_array_equal(arrays["output.y"], 2 * arrays["input.x"])
        assert arrays["input.word"].tolist() == [["a"], ["b"], ["ä"]]


def test_numbers_go_up_from_the_highest(tmp_path: Path, contents: VersionContents) -> None:
    assert publish_version(tmp_path, "sample", contents).version == 1
    assert publish_version(tmp_path, "sample", contents, version=7).version == 7
    assert publish_version(tmp_path, "sample", contents).version == 8
    assert publish_version(tmp_path, "sample", contents, version=3).version == 3
    assert latest_version(tmp_path, "sample") == tmp_path / "sample" / "8"
    assert latest_version(tmp_path, "other") is None


def test_a_taken_number_is_refused(tmp_path: Path, contents: VersionContents) -> None:
    publish_version(tmp_path, "sample", contents, version=7)
    with pytest.raises(VersionExistsError, match=r"already has version 7 .* next free one is 8"):
        publish_version(tmp_path, "sample", make_contents(b"other"), version=7)
    assert (tmp_path / "sample" / "7" / "model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize("given", [None, 5])
def test_a_rival_that_is_faster(
    given: int | None, tmp_path: Path, contents: VersionContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_after_a_rival(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        publish_version(tmp_path, "sample", make_contents(b"rival"), version=int(target.name))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_after_a_rival)
    if given is None:
        assert publish_version(tmp_path, "sample", contents).version == 2
        assert visible_versions(tmp_path / "sample") == [1, 2]
    else:
        with pytest.raises(VersionExistsError, match="already has version 5"):
            publish_version(tmp_path, "sample", contents, version=given)
        assert (tmp_path / "sample" / "5" / "model.onnx").read_bytes() == b"rival"
    assert not list((tmp_path / "sample").glob(".staging-*"))


def test_many_processes_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.training.sample_version import make_contents\n"
        "from training.publish import publish_version\n"
        "for i in range(5): publish_version(Path(sys.argv[1]), 'sample', make_contents(f'{sys.argv[2]} {i}'.encode()),"
        " config='name: \"sample\"')\n"
    )
    publishers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(name)], cwd=ROOT) for name in range(4)
    ]
    assert [publisher.wait(timeout=120) for publisher in publishers] == [0] * 4
    model = tmp_path / "sample"
    assert visible_versions(model) == list(range(1, 21))
    for version in range(1, 21):
        assert_whole(model / str(version))
    models = {(model / str(version) / "model.onnx").read_bytes() for version in range(1, 21)}
    assert models == {f"{name} {i}".encode() for name in range(4) for i in range(5)}
    assert not list(model.glob(".staging-*"))


def test_everything_is_on_disk_before_it_is_visible(
    tmp_path: Path, contents: VersionContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        steps.append("RENAME")
        return rename(path, target)

    (tmp_path / "sample").mkdir()
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    publish_version(tmp_path, "sample", contents, config='name: "sample"')
    assert set(steps[:4]) == {"model.onnx", "model_card.json", "MODEL_CARD.md", "expected.npz"}
    assert steps[4:] == ["manifest.json", "version", "config.pbtxt", "RENAME", "sample"]


def test_a_failure_leaves_nothing(tmp_path: Path, contents: VersionContents) -> None:
    contents = replace(contents, files={**contents.files, "labels.txt": tmp_path / "missing.txt"})
    with pytest.raises(FileNotFoundError):
        publish_version(tmp_path, "sample", contents)
    assert list((tmp_path / "sample").iterdir()) == []


def test_stale_directories_are_removed_and_live_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / ".staging-dead").mkdir()
    (tmp_path / ".staging-dead" / "model.onnx").write_bytes(b"half")
    with staging_directory(tmp_path) as live:
        remove_stale(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [live.name]
    assert list(tmp_path.iterdir()) == []


def test_configuration(tmp_path: Path, contents: VersionContents) -> None:
    config = tmp_path / "sample" / "config.pbtxt"
    publish_version(tmp_path, "sample", contents, config="max_batch_size: 4")
    publish_version(tmp_path, "sample", contents, config="max_batch_size: 4")
    publish_version(tmp_path, "sample", contents)
    assert config.read_text() == "max_batch_size: 4"
    with pytest.raises(ConfigConflictError, match="replace_config=True"):
        publish_version(tmp_path, "sample", contents, config="max_batch_size: 8")
    assert config.read_text() == "max_batch_size: 4"
    assert visible_versions(tmp_path / "sample") == [1, 2, 3]
    publish_version(tmp_path, "sample", contents, config="max_batch_size: 8", replace_config=True)
    assert config.read_text() == "max_batch_size: 8"
    assert visible_versions(tmp_path / "sample") == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b"])
def test_bad_model_names(name: str, tmp_path: Path, contents: VersionContents) -> None:
    with pytest.raises(PublishError, match="model name"):
        publish_version(tmp_path, name, contents)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_bad_version_numbers(version: int, tmp_path: Path, contents: VersionContents) -> None:
    with pytest.raises(PublishError, match="expected an integer from 1 to"):
        publish_version(tmp_path, "sample", contents, version=version)


@pytest.mark.parametrize("name", ["manifest.json", "expected.npz", "../x", ".hidden", "a/b"])
def test_bad_file_names(name: str, tmp_path: Path, contents: VersionContents) -> None:
    with pytest.raises(PublishError, match="expected a plain file name"):
        publish_version(tmp_path, "sample", replace(contents, files={**contents.files, name: b""}))


def test_a_version_needs_a_proven_model(tmp_path: Path, contents: VersionContents) -> None:
    with pytest.raises(PublishError, match=r"no proof of parity for model\.pt"):
        publish_version(tmp_path, "sample", replace(contents, files={**contents.files, "model.pt": b"x"}))
    with pytest.raises(PublishError, match=r"expected a file model\.onnx"):
        publish_version(tmp_path, "sample", replace(contents, files={"labels.txt": b"x"}))


def test_examples_must_not_need_pickle(tmp_path: Path, contents: VersionContents) -> None:
    examples = Examples({"word": np.array(["a"], dtype=object)}, {})
    with pytest.raises(PublishError, match=r"'input\.word' holds Python objects"):
        publish_version(tmp_path, "sample", replace(contents, examples=examples))
    assert visible_versions(tmp_path / "sample") == []


def test_a_version_with_a_missing_or_short_file_is_not_whole(tmp_path: Path, contents: VersionContents) -> None:
    path = publish_version(tmp_path, "sample", contents).path
    (path / "model.onnx").write_bytes(b"w")
    assert not is_whole(path)
    (path / "model.onnx").unlink()
    assert not is_whole(path)
    assert not is_whole(tmp_path)
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": list(manifest["files"])}))
    assert not is_whole(path)
