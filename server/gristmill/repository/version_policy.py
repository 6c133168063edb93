# SPDX-License-Identifier: Apache-2.0
"""Which of the versions in the repository are to be served. Pure functions of the policy and the versions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gristmill_protos.model_config_pb2 import ModelVersionPolicy


@dataclass(frozen=True)
class VersionChoice:
    """`wanted` are to be served, newest first; `missing` were asked for by number and are not there."""

    wanted: tuple[int, ...]
    missing: tuple[int, ...] = ()


def choose_versions(policy: ModelVersionPolicy, available: Collection[int]) -> VersionChoice:
    """Apply a validated policy to the versions that may be loaded. A policy without a choice means the newest one."""
    newest_first = sorted(available, reverse=True)
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionChoice(tuple(newest_first))
        case "specific":
            asked = sorted(set(policy.specific.versions), reverse=True)
            return VersionChoice(
                tuple(version for version in asked if version in available),
                tuple(version for version in asked if version not in available),
            )
        case "latest":
            return VersionChoice(tuple(newest_first[: policy.latest.num_versions]))
        case _:
            return VersionChoice(tuple(newest_first[:1]))
