# SPDX-License-Identifier: Apache-2.0
"""Where the server's time goes under the load of mlp_requests: microseconds of a request by part (needs perf).

As a program: `python -m bench.load.profile_server [native|aio]`. It builds the extension once more, in build/profile,
which differs from the installed one in nothing but that it keeps the names of its functions, for perf to look up.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from bench.build import NAMED_NGHTTP2, BuildError, build, build_with_cmake
from bench.client import BenchClient
from bench.h2load import Load, run_h2load
from bench.load.mlp_requests import LOADS
from bench.load.mlp_servers import LOAD_CORE, SERVER_CORE, prepare
from bench.profile_parts import shares
from bench.report import Table, markdown
from bench.server import gristmill_command, pinned_server

_WARM_UP_REQUESTS = 2_000
# Some seconds of work for each front end.
_REQUESTS = {"native": 2_000_000, "aio": 20_000}
_SAMPLES_PER_S = 999


def main() -> int:
    """Print the parts; the exit status."""
    frontend = sys.argv[1] if len(sys.argv) > 1 else "native"
    try:
        core, nghttp2 = _build_core(), build(NAMED_NGHTTP2)
    except BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as name:
        scratch = Path(name)
        setup = prepare(scratch)
        data, names = scratch / "perf.data", ["perf", "--buildid-dir", str(scratch / "names")]
        command = ["env", f"LD_LIBRARY_PATH={nghttp2.parent}", *gristmill_command(setup.repository, frontend)]
        with pinned_server(command, SERVER_CORE) as server:
            with BenchClient(server.port) as client:
                client.require_ready("mlp")
            run_h2load(server.port, Load(setup.frame, _WARM_UP_REQUESTS, *LOADS[-1]), [LOAD_CORE])
            record = ["perf", "record", "-q", "-g", "-F", str(_SAMPLES_PER_S), "-p", str(server.pid), "-o", str(data)]
            try:
                perf = subprocess.Popen(record)
            except FileNotFoundError:
                print("perf is missing; on Debian: apt-get install linux-perf", file=sys.stderr)
                return 1
            cpu_before = server.cpu_s()
            result = run_h2load(server.port, Load(setup.frame, _REQUESTS[frontend], *LOADS[-1]), [LOAD_CORE])
            cpu_us = (server.cpu_s() - cpu_before) / result.requests * 1e6
            perf.send_signal(signal.SIGINT)
            perf.wait()
        subprocess.run([*names, "buildid-cache", "--add", str(core)], check=True)
        script = [*names, "script", "-i", str(data), "-F", "comm,ip,sym,dso"]
        parts = shares(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    rows = [[part, f"{share:.1%}", f"{share * cpu_us:.2f}"] for part, share in parts.items()]
    print(f"## {frontend}, {result.requests_per_s:,.0f} requests/s while sampled\n")
    print(markdown(Table(["part", "share", "us of a request"], [*rows, ["together", "", f"{cpu_us:.2f}"]])))
    return 0


def _build_core() -> Path:
    """The installed extension with its symbols. Raises BuildError."""
    found = subprocess.run([sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True)
    options = ["-DGRISTMILL_BUILD_PYTHON=ON", "-DCMAKE_STRIP=/bin/true", f"-DPython_EXECUTABLE={sys.executable}"]
    options += [f"-Dpybind11_DIR={found.stdout.strip()}", f"-DSKBUILD_PROJECT_VERSION={version('gristmill')}"]
    folder = build_with_cmake("profile", *options, target="gristmill_python")
    return next((folder / "csrc" / "bindings").glob("_core*.so"))


if __name__ == "__main__":
    sys.exit(main())
