# SPDX-License-Identifier: Apache-2.0
"""The steps that `make` shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / "scripts" / "lib.sh"


def run(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    assert bash
    return subprocess.run(
        [bash, "-c", f"set -euo pipefail; . '{LIB}'\n{script}"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_step_shows_how_long_it_took_and_keeps_its_output(tmp_path: Path) -> None:
    result = run(tmp_path, "step 'compiled core (Release)' echo details; echo next")
    assert result.returncode == 0
    first, second, third = result.stdout.splitlines()
    assert first == "bash: compiled core (Release) ..."
    assert re.fullmatch(r"bash: compiled core: \d+ s", second)
    assert third == "next"
    assert (tmp_path / "build/logs/compiled-core.log").read_text() == "details\n"


@pytest.mark.parametrize("failing", ["false", "exit 1", "(exit 1)", "true | false"])
def test_a_step_ends_at_what_fails_inside_it(tmp_path: Path, failing: str) -> None:
    result = run(tmp_path, f"job() {{ echo reason; {failing}; echo not reached; }}\nstep thing job; echo not reached")
    assert result.returncode == 1
    assert "reason" in result.stdout
    assert "not reached" not in result.stdout
    assert "thing FAILED" in result.stdout.splitlines()[-1]
    assert "build/logs/thing.log" in result.stdout.splitlines()[-1]


def test_without_errexit_a_failed_step_gives_its_status_and_the_script_goes_on(tmp_path: Path) -> None:
    result = run(
        tmp_path, "set +e; job() { false; return 7; }\nstep thing bash -c 'exit 5'; echo $?; step thing job; echo $?"
    )
    assert result.returncode == 0
    statuses = [line for line in result.stdout.splitlines() if line.isdigit()]
    assert statuses == ["5", "1"]


def test_a_step_has_no_standard_input(tmp_path: Path) -> None:
    assert run(tmp_path, "step thing cat").returncode == 0
