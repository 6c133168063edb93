# SPDX-License-Identifier: Apache-2.0
"""What is measured: levels of load, and when the requests of an open loop are due. Pure values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Arrivals(StrEnum):
    """How the requests of an open loop are spread over time."""

    CONSTANT = "constant"
    POISSON = "poisson"


@dataclass(frozen=True)
class Level:
    """One level of load: `concurrency` requests at any time, or `rate` requests a second, whatever comes back."""

    concurrency: int = 0
    rate: float = 0.0
    arrivals: Arrivals = Arrivals.CONSTANT

    def __str__(self) -> str:
        """As the first column of the result."""
        return f"{self.concurrency} at once" if self.concurrency else f"{self.rate:g}/s {self.arrivals}"

    def share(self, index: int, count: int) -> Level:
        """The part of process `index` of `count`."""
        concurrency = self.concurrency // count + (index < self.concurrency % count)
        return Level(concurrency, self.rate / count, self.arrivals)


def parse_range(text: str) -> list[int]:
    """`8`, `1,4,16` or `start:end[:step]` (end included). Raises ValueError."""
    if ":" in text:
        start, end, step = (*(int(part) for part in text.split(":")), 1)[:3]
        values = list(range(start, end + 1, step)) if step > 0 else []
    else:
        values = [int(part) for part in text.split(",")]
    if not values or min(values) < 1:
        raise ValueError(f"{text!r}: expected numbers from 1 as 8, 1,4,16 or start:end:step")
    return values


def due_times(level: Level, seed: int) -> Iterator[float]:
    """Seconds from the beginning at which the requests of an open loop are due, without end."""
    random = np.random.default_rng(seed)
    due = 0.0
    while True:
        yield due
        due += random.exponential(1 / level.rate) if level.arrivals is Arrivals.POISSON else 1 / level.rate
