# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from bench.load.simulation import LOADS, MODELS, POLICIES, TRACES, SimulatedResult, arrivals_ns
from bench.reports.simulation import plot, table


@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_ascends_and_has_the_rate_asked_for(trace: str) -> None:
    due_ns = arrivals_ns(trace, 1000, 20_000, seed=2)
    assert due_ns.size == 20_000
    assert (np.diff(due_ns) >= 0).all()
    assert due_ns[-1] / 1e9 == pytest.approx(20, rel=0.05)


def test_bursts_come_at_three_times_the_rate() -> None:
    due_ns = arrivals_ns("on_off", 1000, 5_000, seed=2)
    assert np.median(np.diff(due_ns)) < np.median(np.diff(arrivals_ns("poisson", 1000, 5_000, seed=2))) / 2.5


def test_another_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a trace of poisson"):
        arrivals_ns("weekly", 1000, 10, seed=2)


def test_a_report_has_a_row_for_each_load_and_a_panel_for_each_model_and_trace() -> None:
    results = [
        SimulatedResult(model, trace, load, policy, goodput=load / 4, answered_late=0, mean_batch=1)
        for model in MODELS
        for trace in TRACES
        for load in LOADS
        for policy in POLICIES
    ]
    assert len(table(results).rows) == len(MODELS) * len(TRACES) * len(LOADS)
    assert len(plot(results).axes) == len(MODELS) * len(TRACES)
