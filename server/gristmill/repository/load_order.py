# SPDX-License-Identifier: Apache-2.0
"""In which order models are loaded where some of them, ensembles, need others to be there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter


def load_order(needs: Mapping[str, Collection[str]]) -> tuple[list[str], dict[str, str]]:
    """Every key of `needs` after those that it needs, and, by name, the circle of those that need themselves.

    A model of a circle stands in the order too, as if it needed nothing. Names that are no keys are left out.
    """
    graph = {name: set(needed) & needs.keys() for name, needed in needs.items()}
    circles: dict[str, str] = {}
    while True:
        try:
            return list(TopologicalSorter(graph).static_order()), circles
        except CycleError as error:
            # It lists each before the one that needs it.
            circle = list(reversed(error.args[1]))
            for name in circle:
                circles[name] = " -> ".join(circle)
                graph[name] = set()
