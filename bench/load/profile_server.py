# SPDX-License-Identifier: Apache-2.0
"""Where the server's time goes under the load of mlp_requests (needs perf).

As a program: `python -m bench.load.profile_server [native|aio]`
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.client import BenchClient
from bench.h2load import Load, run_h2load
from bench.load.mlp_requests import LOADS
from bench.load.mlp_servers import LOAD_CORE, SERVER_CORE, prepare
from bench.server import gristmill_command, pinned_server

_WARM_UP_REQUESTS = 2_000
# Some seconds of work for each front end.
_REQUESTS = {"native": 2_000_000, "aio": 20_000}
_SAMPLES_PER_S = 999


def main() -> int:
    """Print samples by thread and library; the exit status."""
    frontend = sys.argv[1] if len(sys.argv) > 1 else "native"
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as name:
        scratch = Path(name)
        setup = prepare(scratch)
        data = scratch / "perf.data"
        with pinned_server(gristmill_command(setup.repository, frontend), SERVER_CORE) as server:
            with BenchClient(server.port) as client:
                client.require_ready("mlp")
            run_h2load(server.port, Load(setup.frame, _WARM_UP_REQUESTS, *LOADS[-1]), [LOAD_CORE])
            record = ["perf", "record", "-q", "-F", str(_SAMPLES_PER_S), "-p", str(server.pid), "-o", str(data)]
            try:
                perf = subprocess.Popen(record)
            except FileNotFoundError:
                print("perf is missing; on Debian: apt-get install linux-perf", file=sys.stderr)
                return 1
            result = run_h2load(server.port, Load(setup.frame, _REQUESTS[frontend], *LOADS[-1]), [LOAD_CORE])
            perf.send_signal(signal.SIGINT)
            perf.wait()
        print(f"{result.requests_per_s:,.0f} requests/s while sampled")
        report = ["perf", "report", "-q", "-i", str(data), "--sort", "comm,dso", "--percent-limit", "0.5", "--stdio"]
        return subprocess.run(report, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
