# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

from bench.closed_loop import ClosedLoop, Target
from bench.load import io_threads, tensor_sizes
from bench.load.io_threads import WORKLOADS
from bench.load.tensor_sizes import ELEMENTS, Memcpy, size_name
from bench.server import PinnedServer


def test_the_sizes_are_the_ones_that_the_readme_names() -> None:
    assert [size_name(elements * 4) for elements in ELEMENTS] == ["64 B", "4 KiB", "150 KiB", "1.2 MiB", "16 MiB"]
    assert [workload.name for workload in WORKLOADS] == ["64 B", "150 KiB", "150 KiB, gzip"]


@pytest.mark.parametrize("size_bytes", [1, 4_096, 2**20])
def test_a_copy_takes_time(size_bytes: int) -> None:
    with Memcpy(min(os.sched_getaffinity(0))) as memcpy:
        assert memcpy.us_per_copy(size_bytes, 0.001) > 0


def measured(rates: list[float], cpu_us: list[float], client_cpu_us: list[float]) -> ClosedLoop:
    target = Target("measured", PinnedServer(0, 0), Path("frame"))
    return ClosedLoop(target, 4, 2, [1], rates=rates, cpu_us=cpu_us, client_cpu_us=client_cpu_us)


def test_throughput_counts_in_and_out_and_cpu_is_told_in_copies() -> None:
    native = measured([2000, 1000, 3000], [400, 300, 500], [100, 100, 100])
    aio = measured([1000, 500, 1000], [900, 900, 900], [100, 100, 100])
    result = tensor_sizes.summarise(aio, native, 1_000_000, [100, 90, 100])
    assert result.requests_per_s == 1000
    assert result.gb_per_s == pytest.approx(2)
    assert result.memcpy_gb_per_s == pytest.approx(10)
    assert result.cpu_in_copies == pytest.approx(9)
    assert result.core_used == pytest.approx(0.9)
    assert result.client_core_used == pytest.approx(0.1)
    assert result.native_rate_ratio == pytest.approx(2)


def test_growth_is_to_the_neighbouring_run_with_one_event_loop() -> None:
    one = measured([1000, 500, 1000], [1000, 1000, 1000], [100, 100, 100])
    two = measured([1900, 900, 1800], [1000, 1100, 1100], [100, 200, 100])
    result = io_threads.summarise(2, two, one)
    assert result.rate_to_one == pytest.approx(1.8)
    assert result.cpu_to_one == pytest.approx(1.1)
    assert result.server_cores == pytest.approx(1.9)
    assert result.client_cores == pytest.approx(0.18)
