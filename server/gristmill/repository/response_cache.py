# SPDX-License-Identifier: Apache-2.0
"""`response_cache` of a configuration, and the parameters that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gristmill_protos.model_config_pb2 import ModelConfig

from gristmill.repository.config_source import ConfigSource

if TYPE_CHECKING:
    from gristmill._core import CacheOptions

#: How long an answer is kept, and the inputs that it depends on, with commas between.
TTL, INPUTS = "response_cache_ttl_ms", "response_cache_inputs"
#: Of `parameters`, those that are not the backend's.
PARAMETERS = frozenset({TTL, INPUTS})


def check_response_cache(source: ConfigSource, config: ModelConfig) -> None:
    """Check `response_cache` and its parameters in a configuration that is otherwise complete. Raises ConfigError."""
    enabled = config.response_cache.enable
    if enabled and config.HasField("sequence_batching"):
        raise source.error((("response_cache", 0),), "the answers of a model of sequences depend on those before")
    for name in PARAMETERS & config.parameters.keys():
        if not enabled:
            raise source.error((("parameters", 0),), f"{name} needs response_cache {{ enable: true }}")
    if TTL in config.parameters:
        text = config.parameters[TTL].string_value
        if not text.isdecimal() or int(text) == 0:
            raise source.error((("parameters", 0),), f"{TTL}: expected milliseconds, 1 or more, got '{text}'")
    known = [tensor.name for tensor in config.input]
    for name in _key_inputs(config):
        if name not in known:
            raise source.error(
                (("parameters", 0),), f"{INPUTS}: the model has no input '{name}'; it has {', '.join(known)}"
            )


def core_cache(config: ModelConfig) -> CacheOptions | None:
    """The core's form; None if answers are not kept."""
    from gristmill._core import CacheOptions

    if not config.response_cache.enable:
        return None
    ttl_ms = int(config.parameters[TTL].string_value) if TTL in config.parameters else 0
    return CacheOptions(ttl_us=ttl_ms * 1000, key_inputs=_key_inputs(config))


def _key_inputs(config: ModelConfig) -> list[str]:
    if INPUTS not in config.parameters:
        return []
    return [name.strip() for name in config.parameters[INPUTS].string_value.split(",")]
