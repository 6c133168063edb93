# SPDX-License-Identifier: Apache-2.0
"""`instance_group.host_policy` of a configuration: on which of the machine's CPUs a model's instances run."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from gristmill.repository.config_source import ConfigSource


def parse_cpus(text: str) -> frozenset[int]:
    """Of a list such as "0-3,8". Raises ValueError for anything else, or for a CPU that this process may not use."""
    cpus: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ValueError(f"expected CPUs such as 0-3,8, got '{text}'")
        cpus.update(range(first, last + 1))
    strange = cpus - os.sched_getaffinity(0)
    if strange:
        raise ValueError(f"CPU {min(strange)} is not among those that this process may use")
    return frozenset(cpus)


def cpus_of(source: ConfigSource, policies: Mapping[str, Collection[int]]) -> Collection[int]:
    """Where the configuration wants its instances; empty if it does not say. Raises ConfigError.

    `policies` are those of the server, by name. All groups of a model must have the same.
    """
    groups = source.message.instance_group
    for index, group in enumerate(groups):
        field = (("instance_group", index), ("host_policy", 0))
        if group.host_policy != groups[0].host_policy:
            raise source.error(field, "expected the same as in the first instance_group")
        if group.host_policy and group.host_policy not in policies:
            known = ", ".join(policies) or "none"
            raise source.error(
                field, f"unknown policy '{group.host_policy}'; --host-policy gives the server's, which are: {known}"
            )
    name = groups[0].host_policy if groups else ""
    return policies[name] if name else ()


@contextmanager
def pinned(cpus: Collection[int]) -> Iterator[None]:
    """Have the threads and processes that this thread starts run on `cpus`, if there are any."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
