# SPDX-License-Identifier: Apache-2.0
"""A publisher may be killed at any moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.training.sample_version import assert_whole, make_contents, visible_versions
from training.publish import publish_version

ROOT = Path(__file__).parents[2]
OLD_CONFIG, NEW_CONFIG = 'name: "sample"\nmax_batch_size: 4\n', 'name: "sample"\nmax_batch_size: 8\n'


def test_killed_at_every_system_call(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.training.killed_publisher", str(tmp_path), OLD_CONFIG, NEW_CONFIG],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    repositories = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    outcomes = []
    for repository in repositories:
        model = repository / "sample"
        versions = visible_versions(model)
        outcomes.append(len(versions))
        for version in versions:
            assert_whole(model / str(version))
        assert (model / "1" / "model.onnx").read_bytes() == b"first" * 1000
        config = (model / "config.pbtxt").read_text()
        assert config in (OLD_CONFIG, NEW_CONFIG)
        assert config == NEW_CONFIG or versions == [1], "a version must not be visible before its configuration is"

        published = publish_version(repository, "sample", make_contents(b"third"))
        assert published.version == versions[-1] + 1
        assert not [path for path in model.iterdir() if path.name.startswith(".")], "what the dead one left is removed"

    # The version appears at one call and stays: before it nobody sees it, after it everybody does.
    assert outcomes == sorted(outcomes)
    assert outcomes[0] == 1
    assert outcomes[-1] == 2
    assert outcomes.count(2) > 1, "killed after the rename and before the end, too"
    assert outcomes.count(1) > 20
