# SPDX-License-Identifier: Apache-2.0
"""Figures of repeated runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def pair_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of each pair of neighbouring runs, so that a machine that drifts disturbs both halves alike.

    Raises ValueError if the runs do not pair up or a denominator is not above 0.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"expected runs in pairs, got {len(numerators)} and {len(denominators)}")
    if any(denominator <= 0 for denominator in denominators):
        raise ValueError(f"expected denominators above 0, got {list(denominators)}")
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of pair_ratios. Raises ValueError, for no pairs too."""
    ratios = pair_ratios(numerators, denominators)
    if not ratios:
        raise ValueError("expected at least one pair of runs, got none")
    return median(ratios)
