# SPDX-License-Identifier: Apache-2.0
"""Load one version of a model: verify its files, open it, complete its configuration, start its executors.

Blocks for as long as that takes; thread-safe. Nothing that is loaded here reaches a request before it is published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import grpc
from gristmill_protos.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelQueuePolicy

from gristmill.repository.config_source import ConfigSource
from gristmill.repository.ensembles import Interface, StepModel, complete_ensemble, core_steps
from gristmill.repository.errors import RepositoryError
from gristmill.repository.host_policy import cpus_of, pinned
from gristmill.repository.layout import VersionDirectory, verify
from gristmill.repository.model_config import ModelFile, choose_model_file, complete_config
from gristmill.repository.python_models import complete_python_source, config_json, declared_signature
from gristmill.repository.rate_limiter import core_resources
from gristmill.repository.response_cache import core_cache
from gristmill.repository.sequences import core_sequences
from gristmill.repository.signature import protocol_datatype

if TYPE_CHECKING:
    from gristmill._core import ModelOptions, OpenedModel, QueueLevel, Servable

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Engine(Protocol):
    """What the repository needs of the core's Engine."""

    def open_model(self, *, backend: str, path: str, parameters: Mapping[str, str] = ...) -> OpenedModel: ...  # noqa: D102
    def load(self, model: OpenedModel, options: ModelOptions) -> Servable: ...  # noqa: D102
    def load_ensemble(self, options: ModelOptions) -> Servable: ...  # noqa: D102
    def publish(  # noqa: D102
        self, name: str, servables: Sequence[Servable], *, aliases: Mapping[str, int] = ..., reason: str = ""
    ) -> None: ...
    def forget(self, name: str) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class LoadedVersion:
    """A version that can take requests. `config` is complete; `steps` is what an ensemble was checked against."""

    version: int
    config: ModelConfig
    servable: Servable
    steps: Mapping[StepModel, Interface] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """What runs it."""
        return self.config.backend or self.config.platform


class VersionLoader:
    """Turns a version on disk into a LoadedVersion."""

    def __init__(
        self,
        engine: Engine,
        make_options: Callable[[ModelConfig, VersionDirectory], ModelOptions],
        default_max_batch_size: int,
        host_policies: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        """`make_options` translates a version and its complete configuration for the engine.

        `host_policies`: CPUs, by the name that configurations call them.
        """
        self._engine = engine
        self._make_options = make_options
        self._default_max_batch_size = default_max_batch_size
        self._host_policies = host_policies or {}

    def load(self, model: str, version: VersionDirectory, source: ConfigSource) -> LoadedVersion:
        """Raises RepositoryError that says why the version cannot be served."""
        if version.problem is not None:
            raise RepositoryError(grpc.StatusCode.FAILED_PRECONDITION, version.problem)
        try:
            verify(version)
            file = choose_model_file(source, [name for name, _, _ in version.listing])
            config, opened = self._open(model, version, source, file)
            with pinned(cpus_of(source, self._host_policies)):
                servable = self._engine.load(opened, self._make_options(config, version))
        except Exception as error:
            raise as_repository_error(error) from error
        return LoadedVersion(version.version, config, servable)

    def _open(
        self, model: str, version: VersionDirectory, source: ConfigSource, file: ModelFile
    ) -> tuple[ModelConfig, OpenedModel]:
        path = version.path / file.file_name
        open_model = partial(self._engine.open_model, backend=file.backend, path=str(path))
        complete = partial(complete_config, model=model, default_max_batch_size=self._default_max_batch_size)
        if file.backend == "python":
            # It says of itself what its configuration says, of which it gets the whole.
            source = complete_python_source(source, path, model)
            config = complete(source, declared_signature(source), file)
            return config, open_model(parameters={**file.parameters, "model_config": config_json(config)})
        opened = open_model(parameters=file.parameters)
        return complete(source, opened, file), opened

    def load_ensemble(
        self,
        model: str,
        version: VersionDirectory,
        source: ConfigSource,
        steps: Mapping[StepModel, Interface | RepositoryError],
    ) -> LoadedVersion:
        """The same for an ensemble; `steps` says what each of its models takes and makes, or why it cannot."""
        try:
            verify(version)
            config = complete_ensemble(source, steps, model=model)
            servable = self._engine.load_ensemble(self._make_options(config, version))
        except Exception as error:
            raise as_repository_error(error) from error
        found = {name: step for name, step in steps.items() if isinstance(step, Interface)}
        return LoadedVersion(version.version, config, servable, found)


def core_options(config: ModelConfig, version: VersionDirectory) -> ModelOptions:
    """The core's form of a complete configuration."""
    from gristmill._core import ModelOptions, TensorSpec

    batching, sequences = config.dynamic_batching, config.sequence_batching
    resources, weight = core_resources(config)
    return ModelOptions(
        name=config.name,
        version=version.version,
        max_batch_size=config.max_batch_size,
        inputs=[TensorSpec(item.name, protocol_datatype(item.data_type), list(item.dims)) for item in config.input],
        outputs=[TensorSpec(item.name, protocol_datatype(item.data_type), list(item.dims)) for item in config.output],
        dynamic_batching=config.HasField("dynamic_batching") or config.HasField("sequence_batching"),
        max_queue_delay_us=max(
            batching.max_queue_delay_microseconds,
            sequences.oldest.max_queue_delay_microseconds,
            sequences.direct.max_queue_delay_microseconds,
        ),
        preferred_batch_sizes=sorted({*batching.preferred_batch_size, *sequences.oldest.preferred_batch_size}),
        queue_levels=[_queue_level(policy) for policy in _queue_policies(batching)],
        default_queue_level=max(batching.default_priority_level, 1) - 1,
        preserve_ordering=batching.preserve_ordering,
        decoupled=config.model_transaction_policy.decoupled,
        cache=core_cache(config),
        sequence=core_sequences(config, version.path.parent),
        steps=core_steps(config),
        resources=resources,
        weight=weight,
        has_own_cpus=any(group.host_policy for group in config.instance_group),
        instance_count=sum(group.count for group in config.instance_group) or 1,
    )


def _queue_policies(batching: ModelDynamicBatching) -> list[ModelQueuePolicy]:
    """Of each priority, the most urgent first."""
    own = batching.priority_queue_policy
    priorities = range(1, max(batching.priority_levels, 1) + 1)
    return [own.get(priority, batching.default_queue_policy) for priority in priorities]


def _queue_level(policy: ModelQueuePolicy) -> QueueLevel:
    from gristmill._core import QueueLevel

    return QueueLevel(
        max_queue_size=policy.max_queue_size,
        default_timeout_us=policy.default_timeout_microseconds,
        # Where the configuration says nothing of timeouts, there is none to be overridden.
        allow_timeout_override=policy.allow_timeout_override or policy.default_timeout_microseconds == 0,
        delays_timed_out=policy.timeout_action == ModelQueuePolicy.DELAY,
    )


def as_repository_error(error: Exception) -> RepositoryError:
    """Give any failure of a load its gRPC code: the core's errors carry one, files may vanish, the rest is a fault."""
    if isinstance(error, RepositoryError):
        return error
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str):
        return RepositoryError(_STATUS_CODES[code], message)
    if isinstance(error, OSError):
        return RepositoryError(grpc.StatusCode.UNAVAILABLE, f"cannot read {error.filename}: {error.strerror}")
    return RepositoryError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
