# SPDX-License-Identifier: Apache-2.0
"""The load generator's arithmetic, and its loops under a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest
from gristmill_client.bench.levels import Arrivals, Level, due_times, parse_range
from gristmill_client.bench.windows import Latency, ServerSplit, Totals, Window, is_stable, merge_parallel
from gristmill_client.bench.worker import Recorder, closed_loop, open_loop


@pytest.mark.parametrize(
    ("text", "values"), [("8", [8]), ("1,4,16", [1, 4, 16]), ("1:4", [1, 2, 3, 4]), ("1:9:4", [1, 5, 9])]
)
def test_ranges(text: str, values: list[int]) -> None:
    assert parse_range(text) == values


@pytest.mark.parametrize("text", ["", "0", "a", "4:1", "1:4:0", "1:4:-1", "1,,2"])
def test_bad_ranges_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_range(text)


def test_constant_arrivals_are_evenly_spread() -> None:
    assert list(itertools.islice(due_times(Level(rate=4), 0), 4)) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_its_spread() -> None:
    level = Level(rate=100, arrivals=Arrivals.POISSON)
    due = list(itertools.islice(due_times(level, 1), 20_001))
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.03)
    assert variance == pytest.approx(mean**2, rel=0.1)


def test_processes_share_a_level() -> None:
    assert [Level(concurrency=5).share(i, 3).concurrency for i in range(3)] == [2, 2, 1]
    assert [Level(rate=30).share(i, 3).rate for i in range(3)] == [10, 10, 10]


def window(per_second: int, latency_s: float = 0.01) -> Window:
    return Window(1.0, [latency_s] * per_second)


def test_stability_takes_three_windows_that_agree() -> None:
    assert not is_stable([window(100), window(100)], 0.1)
    assert is_stable([window(10), window(100), window(105), window(95)], 0.1)
    assert not is_stable([window(100), window(100), window(130)], 0.1)
    assert not is_stable([window(100), window(100), window(100, 0.02)], 0.1)
    assert not is_stable([window(0)] * 3, 0.1)


def test_windows_of_several_processes_add_up() -> None:
    merged = merge_parallel([window(10), Window(1.0, [0.5], Counter(INTERNAL=2))])
    assert merged.per_second == 11
    assert merged.errors == {"INTERNAL": 2}


def test_latencies_are_percentiles_in_microseconds() -> None:
    latency = Latency.of([number / 1000 for number in range(101)])
    assert (latency.p50_us, latency.p90_us, latency.p95_us, latency.p99_us) == pytest.approx((50e3, 90e3, 95e3, 99e3))
    assert Latency.of([]).p99_us == 0


def test_the_server_split_is_what_happened_in_between() -> None:
    before = Totals(10, 10, 10, 1000, 1000, 1000, 1000)
    after = Totals(30, 50, 20, 41_000, 21_000, 61_000, 1000)
    assert after.split_since(before) == ServerSplit(2.0, 1.0, 3.0, 0.0, 4.0)
    assert before.split_since(before) == ServerSplit()


class FakeTime:
    """Seconds that pass only in `sleep`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


async def test_a_stall_is_charged_to_every_request_it_delayed() -> None:
    """10 requests a second; the second one stalls the generator for a second: the next ones were due long before."""
    time = FakeTime()
    recorder = Recorder(time.now)
    sent = itertools.count()
    enough = asyncio.Event()

    async def send() -> None:
        number = next(sent)
        if number == 1:
            time.seconds += 1.0
        if number == 5:
            enough.set()

    task = asyncio.create_task(open_loop(Level(rate=10), send, recorder, time.now, time.sleep, 0))
    await asyncio.wait_for(enough.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    latencies = recorder.take().latencies_s
    # The fake clock moves on before it lets anybody run, so every answer is one gap (0.1 s) late as well.
    assert latencies[:5] == pytest.approx([0.1, 1.1, 1.1, 1.0, 0.9])


async def test_a_closed_loop_keeps_so_many_at_once() -> None:
    running, most, calls = 0, 0, 0
    enough = asyncio.Event()

    async def send() -> None:
        nonlocal running, most, calls
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        calls += 1
        if calls >= 100:
            enough.set()

    time = FakeTime()
    recorder = Recorder(time.now)
    task = asyncio.create_task(closed_loop(Level(concurrency=7), send, recorder, time.now))
    await asyncio.wait_for(enough.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert most == 7
    assert len(recorder.take().latencies_s) >= 93
