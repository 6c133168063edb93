# SPDX-License-Identifier: Apache-2.0
import pytest

from bench.statistics import median_ratio, pair_ratios


def test_ratios_are_taken_pair_by_pair() -> None:
    # Both halves slow down by half in the second pair: the ratio does not move.
    assert pair_ratios([90, 45, 80], [100, 50, 100]) == [0.9, 0.9, 0.8]
    assert median_ratio([90, 45, 80], [100, 50, 100]) == 0.9


def test_the_median_of_an_even_count_lies_between() -> None:
    assert median_ratio([1, 3], [1, 1]) == 2


@pytest.mark.parametrize(("above", "below"), [([1, 2], [1]), ([1], [0]), ([1], [-1])])
def test_runs_that_do_not_pair_up_are_refused(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pair_ratios(above, below)


def test_no_pairs_have_no_median() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        median_ratio([], [])
