# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from bench.closed_loop import ClosedLoop, Target
from bench.load.composed import MODELS, summarise
from bench.reports.composed import table
from bench.server import PinnedServer


def measured(model: str, rates: list[float]) -> ClosedLoop:
    target = Target(model, PinnedServer(0, 0), Path("frame"))
    return ClosedLoop(target, 4, 2, [1], rates=rates, cpu_us=[3, 1, 2], batches=[1, 5, 6])


def test_rates_are_compared_with_as_many_calls_of_the_backend() -> None:
    backend = measured("backend", [100, 50, 100])
    results = [
        summarise(backend, backend),
        summarise(measured("cached", [200, 100, 100]), backend),
        summarise(measured("ensemble", [40, 20, 50]), backend),
        summarise(measured("python", [10, 5, 20]), backend),
    ]
    assert [result.rate_ratio for result in results] == pytest.approx([1, 2, 0.8, 0.1])
    assert [result.model for result in results] == list(MODELS)
    assert (results[0].calls, results[0].requests_per_s, results[0].cpu_us_per_request) == (8, 100, 2)
    assert len(table(results).rows) == 4
