# SPDX-License-Identifier: Apache-2.0
"""How many requests are answered in time, by the server's own scheduler and by how other systems form batches.

In simulated time (csrc/simulation): traces of arrivals, a deadline of five times the run of a single row, and runs that
take what ONNX Runtime takes on this machine for the sample models.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from gristmill._core import NEVER, simulate

from bench.effort import Effort
from bench.load.direct_loop import DirectLoop
from bench.machine import ROOT

#: Largest batch by model. MLP-sized work is all transport, which is not simulated.
MODELS = {"magika": 16, "recommender": 64}
POLICIES = ("gristmill", "fixed_delay", "clipper", "nexus", "clockwork")
TRACES = ("poisson", "on_off", "diurnal")
LOADS = (0.5, 0.8, 1.0, 1.5, 3.0)
_DEADLINE_IN_SINGLE_RUNS = 5
#: Of the fixed policy, to the deadline: what the textbooks recommend.
_DELAY_TO_DEADLINE = 0.25
_SPREAD = 0.1
_REQUESTS_PER_ROUND = 20_000
_CORE = 0


@dataclass(frozen=True)
class SimulatedResult:
    """One policy under one trace. `goodput`: answers in time per second, to the rows per second at saturation."""

    model: str
    trace: str
    load: float
    policy: str
    goodput: float
    answered_late: float
    mean_batch: float


def run_times_ns(model: str, max_rows: int, seconds: float) -> np.ndarray:
    """What a run of `model` takes, by rows - 1: measured at powers of two, straight lines between."""
    sizes = [2**n for n in range(max_rows.bit_length())]
    with DirectLoop(ROOT / "model_repo", model, _CORE) as direct:
        measured = [size / direct.rows_per_s(size, seconds) * 1e9 for size in sizes]
    by_rows: np.ndarray = np.interp(np.arange(1, max_rows + 1), sizes, np.maximum.accumulate(measured))
    return by_rows.astype(np.int64)


def arrivals_ns(trace: str, rate_per_s: float, requests: int, seed: int) -> np.ndarray:
    """When requests come, at `rate_per_s` on average. Raises ValueError for a trace that is not one of TRACES.

    "on_off": bursts at three times the rate for a third of the time, in periods of 500 requests. "diurnal": a sine
    between nothing and twice the rate, over all requests.
    """
    random = np.random.default_rng(seed)
    steady_s = np.cumsum(random.exponential(1 / rate_per_s, requests))
    if trace == "poisson":
        return (steady_s * 1e9).astype(np.int64)
    if trace == "on_off":
        period_s = 500 / rate_per_s
        return ((steady_s // period_s * period_s + steady_s % period_s / 3) * 1e9).astype(np.int64)
    if trace == "diurnal":
        length_s = requests / rate_per_s
        grid = np.linspace(0, 1, 10_001)
        share = grid - np.sin(2 * np.pi * grid) / (2 * np.pi)
        due_ns: np.ndarray = np.interp(steady_s / steady_s[-1], share, grid) * length_s * 1e9
        return due_ns.astype(np.int64)
    raise ValueError(f"expected a trace of {', '.join(TRACES)}, got {trace}")


def run(effort: Effort) -> list[SimulatedResult]:
    """Simulate all policies under all traces; `effort.rounds` lengthens the traces."""
    results = []
    requests = _REQUESTS_PER_ROUND * effort.rounds
    for model, max_rows in MODELS.items():
        runs_ns = run_times_ns(model, max_rows, effort.seconds)
        saturation_per_s = float(np.max(np.arange(1, max_rows + 1) / runs_ns)) * 1e9
        deadline_ns = _DEADLINE_IN_SINGLE_RUNS * int(runs_ns[0])
        for trace, load in itertools.product(TRACES, LOADS):
            due_ns = arrivals_ns(trace, load * saturation_per_s, requests, seed=1)
            for policy in POLICIES:
                answered_ns, batch_rows = simulate(
                    policy=policy,
                    arrivals_ns=due_ns,
                    run_ns=runs_ns,
                    objective_ns=deadline_ns,
                    spread=_SPREAD,
                    max_queue_delay_ns=int(_DELAY_TO_DEADLINE * deadline_ns),
                )
                answered = answered_ns != NEVER
                in_time = answered & (answered_ns <= due_ns + deadline_ns)
                results.append(
                    SimulatedResult(
                        model=model,
                        trace=trace,
                        load=load,
                        policy=policy,
                        goodput=float(in_time.sum() / (due_ns[-1] / 1e9) / saturation_per_s),
                        answered_late=float((answered & ~in_time).mean()),
                        mean_batch=float(batch_rows.mean()),
                    )
                )
    return results


def configuration(effort: Effort) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "deadline": f"{_DEADLINE_IN_SINGLE_RUNS} x a run of one row",
        "delay of fixed_delay, to the deadline": _DELAY_TO_DEADLINE,
        "spread of runs": _SPREAD,
        "requests": _REQUESTS_PER_ROUND * effort.rounds,
        "max_batch_size": MODELS,
    }
