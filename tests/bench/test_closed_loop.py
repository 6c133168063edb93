# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench import closed_loop
from bench.closed_loop import ClosedLoop, Target, run_in_turns
from bench.h2load import Load, LoadResult


@dataclass
class FakeServer:
    """Takes 20 us of CPU for each request; what it was asked is in `loads`."""

    requests_per_s: float
    port: int = 0
    pid: int = 0
    spent_s: float = 0
    loads: list[Load] = field(default_factory=list)

    def cpu_s(self) -> float:
        return self.spent_s


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ClosedLoop:
    return make_loop(monkeypatch, FakeServer(1000))


def make_loop(monkeypatch: pytest.MonkeyPatch, server: FakeServer, connections: int = 4) -> ClosedLoop:
    def run_h2load(port: int, load: Load, cores: Sequence[int]) -> LoadResult:
        server.loads.append(load)
        server.spent_s += load.requests * 20e-6
        return LoadResult(load.requests, load.requests / server.requests_per_s, 0)

    monkeypatch.setattr(closed_loop, "run_h2load", run_h2load)
    return ClosedLoop(Target("fake", server, Path("frame"), None, "gzip"), connections, 64, [1])


def test_a_run_adds_its_rate_and_cpu(loop: ClosedLoop) -> None:
    loop.run()
    loop.run()
    assert loop.rates == pytest.approx([1000, 1000])
    assert loop.cpu_us == pytest.approx([20, 20])
    assert len(loop.client_cpu_us) == 2
    assert loop.batches == []
    assert loop.cores_used == pytest.approx(0.02)


def test_the_load_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(1000)
    make_loop(monkeypatch, server).run()
    assert server.loads == [Load(Path("frame"), 500, 4, 64, "gzip")]


def test_calibration_ends_with_a_run_of_about_the_wanted_length_and_counts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = FakeServer(100_000)
    loop = make_loop(monkeypatch, server)
    loop.calibrate(seconds=2)
    assert loop.requests == pytest.approx(200_000, rel=1e-6)
    assert server.loads[-1].requests * 3 >= loop.requests
    assert loop.rates == loop.cpu_us == loop.client_cpu_us == []


def test_a_slow_server_gets_enough_requests_to_fill_its_streams_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop(monkeypatch, FakeServer(1))
    loop.calibrate(seconds=1, first_requests=20)
    assert loop.requests == 2 * 4 * 64


def test_loops_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(1000)
    loops = [make_loop(monkeypatch, server, connections) for connections in (1, 2)]
    run_in_turns(loops, 2)
    assert [load.connections for load in server.loads] == [1, 2, 1, 2]
