# SPDX-License-Identifier: Apache-2.0
import os
import sys
from pathlib import Path

import pytest

from bench.server import ServerError, parse_cpu_ticks, pinned_server


def test_cpu_ticks_are_user_and_system_time() -> None:
    stat = "7 (odd) name (x) S 1 7 7 0 -1 4194304 11 12 13 14 250 50 99 98 20 0 1 0 5 6 7"
    assert parse_cpu_ticks(stat) == 300


def test_cpu_ticks_of_this_process_agree_with_the_system() -> None:
    before = os.times()
    ticks = parse_cpu_ticks(Path("/proc/self/stat").read_text())
    after = os.times()
    per_second = os.sysconf("SC_CLK_TCK")
    # Each of the two times is rounded down to a tick.
    assert (before.user + before.system) * per_second - 2 <= ticks <= (after.user + after.system) * per_second + 2


def test_a_server_runs_on_its_core_until_the_block_ends() -> None:
    core = min(os.sched_getaffinity(0))
    program = "import time; print('listening on 127.0.0.1:4711', flush=True); time.sleep(600)"
    with pinned_server([sys.executable, "-c", program], core) as server:
        assert server.port == 4711
        assert os.sched_getaffinity(server.pid) == {core}
        assert server.cpu_s() >= 0
    assert not Path(f"/proc/{server.pid}").exists()


def test_a_server_that_ends_early_is_an_error_with_its_output() -> None:
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(ServerError, match="no such model"), pinned_server(command, core):
        pass
