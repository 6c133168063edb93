# SPDX-License-Identifier: Apache-2.0
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from bench.server import ServerError, cpu_clock, free_port, pinned_server


def test_the_cpu_clock_of_this_process_agrees_with_its_own() -> None:
    before = time.process_time()
    measured = time.clock_gettime(cpu_clock(os.getpid()))
    assert before <= measured <= time.process_time()


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize(
    "line", ["gristmill listening on 127.0.0.1:4711", 'I1124 "Started GRPCInferenceService at 127.0.0.1:4711"']
)
def test_the_port_is_read_from_what_a_server_says(line: str) -> None:
    core = min(os.sched_getaffinity(0))
    program = f"import time; print({line!r}, flush=True); time.sleep(600)"
    with pinned_server([sys.executable, "-c", program], core) as server:
        assert server.port == 4711


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
