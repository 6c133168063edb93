# SPDX-License-Identifier: Apache-2.0
"""What must hold of every decision of the batch policy, and of every run of the scheduler in simulated time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gristmill._core import NEVER, CoreError, decide, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from gristmill._core import BatchDecision

_NOW_NS = 10_000_000
_times = st.integers(_NOW_NS - 5_000_000, _NOW_NS)
_deadlines = st.one_of(st.just(NEVER), st.integers(_NOW_NS + 1, _NOW_NS + 20_000_000))


@dataclass(frozen=True)
class Case:
    """A snapshot, as decide() takes it."""

    groups: list[list[tuple[int, int, int, int]]]
    latency: list[tuple[int, int, int, int]]
    max_rows: int
    max_queue_delay_ns: int
    gap_ns: int

    def decide(self) -> "BatchDecision":
        """Of the policy."""
        return decide(
            groups=self.groups,
            latency=self.latency,
            max_rows=self.max_rows,
            max_queue_delay_ns=self.max_queue_delay_ns,
            gap_ns=self.gap_ns,
            last_arrival_ns=_NOW_NS,
            now_ns=_NOW_NS,
        )

    def tail_ns(self, rows: int) -> int:
        """What may be promised for a run of `rows`: straight lines between the entries of the table."""
        if not self.latency:
            return 0
        known = [entry[0] for entry in self.latency]
        tails = [entry[3] for entry in self.latency]
        if rows > known[-1]:
            return int(tails[-1] * rows / known[-1])
        return int(np.interp(rows, known, tails))


@st.composite
def _latencies(draw: st.DrawFn, max_rows: int) -> list[tuple[int, int, int, int]]:
    if draw(st.booleans()) and draw(st.booleans()):
        return []
    entries, typical, rows = [], draw(st.integers(1_000, 2_000_000)), 1
    while True:
        entries.append((rows, typical // 2, typical, int(typical * 1.5)))
        if rows == max_rows:
            return entries
        typical += draw(st.integers(0, 500_000))
        rows = min(2 * rows, max_rows)


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    max_rows = draw(st.integers(1, 32))
    requests = st.tuples(st.integers(1, max_rows), _times, _deadlines, st.just(NEVER))
    return Case(
        groups=draw(st.lists(st.lists(requests, min_size=1, max_size=20), min_size=1, max_size=3)),
        latency=draw(_latencies(max_rows)),
        max_rows=max_rows,
        max_queue_delay_ns=draw(st.sampled_from([-1, 0, 1_000_000])),
        gap_ns=draw(st.one_of(st.just(NEVER), st.integers(1, 3_000_000))),
    )


def _taken(case: Case, decision: "BatchDecision") -> list[tuple[int, int, int, int]]:
    kept = [r for r in case.groups[decision["group"]] if r[2] >= decision["give_up_before_ns"]]
    return kept[: decision["count"]]


@given(_cases())
def test_a_batch_is_never_larger_than_max_rows_and_never_late_for_one_that_is_not_late_alone(case: Case) -> None:
    decision = case.decide()
    if decision["count"] == 0:
        return
    batch = _taken(case, decision)
    assert len(batch) == decision["count"]
    rows = sum(request[0] for request in batch)
    assert rows <= case.max_rows
    # The table is interpolated in whole nanoseconds here and there.
    answered_ns = _NOW_NS + case.tail_ns(rows) - 1
    for own_rows, _, deadline_ns, _ in batch:
        if _NOW_NS + case.tail_ns(own_rows) + 1 <= deadline_ns:
            assert answered_ns <= deadline_ns


@given(_cases())
def test_a_wait_ends_in_time(case: Case) -> None:
    decision = case.decide()
    if decision["count"] > 0:
        return
    assert decision["wait_until_ns"] > _NOW_NS
    for group in case.groups:
        assert sum(request[0] for request in group) < case.max_rows
    if case.max_queue_delay_ns >= 0:
        oldest_ns = min(request[1] for group in case.groups for request in group)
        assert decision["wait_until_ns"] <= oldest_ns + case.max_queue_delay_ns
    for group in case.groups:
        for rows, _, deadline_ns, _ in group:
            # Once the wait is over, the request can still be run alone.
            assert deadline_ns == NEVER or decision["wait_until_ns"] + case.tail_ns(rows) <= deadline_ns + 1


@given(_cases())
def test_where_nobody_waits_for_company_the_first_group_goes(case: Case) -> None:
    never_waits = Case(case.groups, case.latency, case.max_rows, 0, case.gap_ns)
    decision = never_waits.decide()
    assert decision["group"] == 0
    assert decision["count"] > 0


def _arrivals_ns(gaps_ns: list[int]) -> np.ndarray:
    return np.cumsum(np.array(gaps_ns, dtype=np.int64))


_traces = st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200).map(_arrivals_ns)
_runs = st.tuples(st.integers(1_000, 2_000_000), st.integers(0, 200_000), st.integers(1, 32)).map(
    lambda line: np.array([line[0] + line[1] * rows for rows in range(line[2])], dtype=np.int64)
)


@settings(max_examples=50)
@given(_traces, _runs, st.integers(0, 2_000_000), st.integers(1, 3))
def test_without_deadlines_all_are_answered_and_nobody_is_overtaken(
    arrivals_ns: np.ndarray, run_ns: np.ndarray, delay_ns: int, executors: int
) -> None:
    answered_ns, batch_rows = simulate(
        policy="fixed_delay",
        arrivals_ns=arrivals_ns,
        run_ns=run_ns,
        objective_ns=NEVER,
        executors=executors,
        max_queue_delay_ns=delay_ns,
    )
    assert (answered_ns != NEVER).all()
    assert (answered_ns > arrivals_ns).all()
    assert batch_rows.sum() == arrivals_ns.size
    assert batch_rows.max() <= run_ns.size
    if executors == 1:
        assert (np.diff(answered_ns) >= 0).all()


@settings(max_examples=50)
@given(_traces, _runs, st.integers(1_000, 20_000_000), st.integers(1, 3))
def test_with_deadlines_and_runs_that_take_what_they_took_nobody_is_answered_late(
    arrivals_ns: np.ndarray, run_ns: np.ndarray, objective_ns: int, executors: int
) -> None:
    answered_ns, batch_rows = simulate(
        policy="gristmill", arrivals_ns=arrivals_ns, run_ns=run_ns, objective_ns=objective_ns, executors=executors
    )
    ran = answered_ns != NEVER
    assert batch_rows.sum() == ran.sum()
    if objective_ns >= run_ns[0]:
        # Nothing is known at first, and what nothing stands before is always worth a try.
        assert ran[0]
    late = ran & (answered_ns > arrivals_ns + objective_ns)
    # What is larger than any run so far, or has not been run for a while, is a guess.
    assert late.sum() <= executors * (2 * run_ns.size + 20) + ran.size // 4


def test_the_adaptive_policy_answers_more_in_time_than_its_peers_under_overload() -> None:
    run_ns = np.array([1_000_000 + 100_000 * rows for rows in range(16)], dtype=np.int64)
    saturation_per_s = 16 / (run_ns[-1] / 1e9)
    random = np.random.default_rng(1)
    arrivals_ns = np.cumsum(random.exponential(1e9 / (3 * saturation_per_s), 30_000)).astype(np.int64)
    objective_ns = 5 * int(run_ns[0])
    goodput = {}
    for policy in ("gristmill", "fixed_delay", "clipper", "nexus", "clockwork"):
        answered_ns, _ = simulate(
            policy=policy, arrivals_ns=arrivals_ns, run_ns=run_ns, objective_ns=objective_ns, spread=0.05
        )
        in_time = (answered_ns != NEVER) & (answered_ns <= arrivals_ns + objective_ns)
        goodput[policy] = in_time.sum() / (arrivals_ns[-1] / 1e9) / saturation_per_s
    assert goodput["gristmill"] > 0.9
    assert goodput["gristmill"] >= 0.98 * max(goodput.values())
    assert goodput["fixed_delay"] < 0.1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"policy": "best"}, "expected a policy"),
        ({"arrivals_ns": np.array([2, 1])}, "must ascend"),
        ({"arrivals_ns": np.array([-1])}, "negative"),
        ({"run_ns": np.array([], dtype=np.int64)}, "run_ns"),
        ({"run_ns": np.array([0])}, "positive"),
        ({"executors": 0}, "executors"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "policy": "gristmill",
        "arrivals_ns": np.array([0, 1]),
        "run_ns": np.array([10]),
        "objective_ns": 100,
    }
    with pytest.raises(CoreError, match=message):
        simulate(**(arguments | changed))  # type: ignore[arg-type]
