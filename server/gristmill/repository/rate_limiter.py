# SPDX-License-Identifier: Apache-2.0
"""`instance_group.rate_limiter` of a configuration: what a run needs of what models share."""

from __future__ import annotations

from gristmill_protos.model_config_pb2 import ModelConfig

from gristmill.repository.config_source import ConfigSource


def check_rate_limiter(source: ConfigSource) -> None:
    """Raises ConfigError. All groups of a model must need the same."""
    groups = source.message.instance_group
    for index, group in enumerate(groups):
        field = (("instance_group", index), ("rate_limiter", 0))
        if group.rate_limiter != groups[0].rate_limiter:
            raise source.error(field, "expected the same as in the first instance_group")
        names = [resource.name for resource in group.rate_limiter.resources]
        if len(set(names)) < len(names) or not all(names):
            raise source.error(field, f"expected resources with a name, each once, got {names}")
        for resource in group.rate_limiter.resources:
            if resource.count == 0:
                raise source.error(field, f"resource '{resource.name}': expected a count of 1 or more, got 0")


def core_resources(config: ModelConfig) -> tuple[dict[str, int], int]:
    """By name, how much a run needs, and the model's weight: Triton's priority, which is 1 if not given."""
    limiter = config.instance_group[0].rate_limiter if config.instance_group else None
    if limiter is None:
        return {}, 1
    return {resource.name: resource.count for resource in limiter.resources}, limiter.priority or 1
