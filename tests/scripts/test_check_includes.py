# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_includes import import_violations, include_violations, main


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("csrc/core/status.h", "#include <string>\n"),
        ("csrc/protocol/decoder.cc", '#include "protocol/decoder.h"\n#include "core/tensor.h"\n'),
        ("csrc/backends/torch/runner.cu", '#include "cuda/stream.h"\n#include "backends/plugin.h"\n'),
        ("csrc/engine/engine.cc", '#include "batching/queue.h"\n#  include "protocol/encoder.h"\n'),
        ("csrc/bindings/module.cc", '#include "engine/engine.h"\n#include <pybind11/pybind11.h>\n'),
        ("csrc/core/notes.txt", '#include "engine/engine.h"\n'),
    ],
)
def test_an_include_along_the_arrows_passes(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)
    assert list(include_violations(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "included"),
    [
        ("csrc/core/status.h", '"engine/engine.h"'),
        ("csrc/core/status.h", "<engine/engine.h>"),
        ("csrc/batching/queue.h", '"protocol/decoder.h"'),
        ("csrc/protocol/decoder.cc", '"backends/plugin.h"'),
        ("csrc/backends/plugin.h", '"engine/engine.h"'),
        ("csrc/backends/torch/runner.cu", '"batching/queue.h"'),
        ("csrc/engine/engine.h", '"bindings/bindings.h"'),
        ("csrc/engine/engine.h", '"backends/plugin.h"'),
        ("csrc/bindings/module.cc", '"protocol/decoder.h"'),
        ("csrc/engine/engine.cc", '"../bindings/bindings.h"'),
        ("csrc/engine/engine.cc", '"engine.h"'),
    ],
)
def test_an_include_against_the_arrows_is_reported(tmp_path: Path, name: str, included: str) -> None:
    write(tmp_path, name, f"#pragma once\n#include {included}\n")
    (violation,) = include_violations(tmp_path)
    assert violation.startswith(f"{name}: includes ")
    assert included.strip('"<>') in violation


def test_a_room_without_a_rule_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "csrc/attic/old.h", "#pragma once\n")
    (violation,) = include_violations(tmp_path)
    assert violation.startswith("csrc/attic/old.h: room 'attic'")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clients/python/gristmill_client/client.py", "import gristmill_protos\nfrom gristmill_client import codec\n"),
        ("training/all.py", "from training.data import package_file\n"),
        ("server/gristmill/cli.py", "from gristmill_client.cli import register\nfrom . import logs\n"),
    ],
)
def test_an_import_within_the_rules_passes(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)
    assert list(import_violations(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "text", "package"),
    [
        ("clients/python/gristmill_client/client.py", "import gristmill._core\n", "gristmill"),
        ("clients/python/examples/show.py", "def show():\n    from gristmill import core\n", "gristmill"),
        ("training/all.py", "import json, gristmill.repository\n", "gristmill"),
        ("server/gristmill/cli.py", "from training.publish import Publisher\n", "training"),
    ],
)
def test_an_import_against_the_rules_is_reported(tmp_path: Path, name: str, text: str, package: str) -> None:
    write(tmp_path, name, text)
    (violation,) = import_violations(tmp_path)
    assert violation.startswith(f"{name}: imports {package},")


def test_the_exit_status_says_whether_there_are_violations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "csrc/core/status.h", "#include <string>\n")
    assert main(tmp_path) == 0
    write(tmp_path, "csrc/core/clock.h", '#include "engine/engine.h"\n')
    write(tmp_path, "training/all.py", "import gristmill\n")
    assert main(tmp_path) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2
