# SPDX-License-Identifier: Apache-2.0
"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How often each thing to measure has its turn, and for how long."""

    rounds: int
    seconds: float
