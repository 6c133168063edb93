# SPDX-License-Identifier: Apache-2.0
"""Publishes again and again, each time killed (SIGKILL) one system call later, until it gets through.

    python -m tests.training.killed_publisher DIRECTORY OLD_CONFIG NEW_CONFIG

Makes DIRECTORY/<n>/sample with version 1 and OLD_CONFIG, and in a child that dies at its n-th system call publishes the
next version with NEW_CONFIG. A process of its own, since forking is safe only where there are no other threads.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.training.sample_version import make_contents
from training.publish import publish_version


def publish_and_die(repository: Path, config: str, at_call: int) -> None:
    calls = 0

    def count(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal calls
        if event != "c_call":
            return
        owner = getattr(function, "__self__", None)
        on_file = isinstance(owner, io.IOBase) and not isinstance(owner, io.BytesIO)
        if on_file or getattr(function, "__module__", None) in ("posix", "fcntl", "_io"):
            calls += 1
            if calls == at_call:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    publish_version(repository, "sample", make_contents(b"second" * 1000), config=config, replace_config=True)
    sys.setprofile(None)


def main() -> None:
    directory, old_config, new_config = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    for at_call in range(1, 10_000):
        repository = directory / str(at_call)
        publish_version(repository, "sample", make_contents(b"first" * 1000), config=old_config)
        child = os.fork()
        if child == 0:
            try:
                publish_and_die(repository, new_config, at_call)
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        if status != -signal.SIGKILL:
            raise SystemExit(f"the publisher failed by itself before call {at_call}: {status}")


if __name__ == "__main__":
    main()
