# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest
from gristmill.frontend import BufferLimits
from gristmill.machine import cores, memory_bytes
from gristmill.options import ServerOptions


def test_cores_are_those_the_process_may_run_on() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)


@pytest.mark.parametrize("text", ["max", "99999999999999999", "", None])
def test_memory_without_a_limit_is_the_machines(tmp_path: Path, text: str | None) -> None:
    limit = tmp_path / "memory.max"
    if text is not None:
        limit.write_text(f"{text}\n")
    assert memory_bytes(limit) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1048576\n")
    assert memory_bytes(limit) == 1048576


def test_what_may_be_buffered_is_divided() -> None:
    limits = BufferLimits.of(ServerOptions(model_repositories=[], max_buffered_bytes=1 << 30))
    assert (limits.received_bytes, limits.answer_bytes, limits.connection_bytes) == (1 << 29, 1 << 29, 1 << 27)
    assert BufferLimits.of(ServerOptions(model_repositories=[])).received_bytes == memory_bytes() // 4
