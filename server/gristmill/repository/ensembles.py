# SPDX-License-Identifier: Apache-2.0
"""`ensemble_scheduling` of a configuration: models whose outputs are each other's inputs, checked before any is run.

Pure: what the steps' models take and make is given as `Interface`, and nothing here looks for models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from gristmill_protos.model_config_pb2 import DataType, ModelConfig, ModelEnsembling, ModelInput, ModelOutput

from gristmill.repository.config_source import ConfigSource, FieldPath
from gristmill.repository.errors import RepositoryError

if TYPE_CHECKING:
    from gristmill._core import EnsembleStep

PLATFORM = "ensemble"

#: A model and a version as requests name them; version "" is the newest.
StepModel = tuple[str, str]

_NEEDS_NO = ("backend", "default_model_filename", "dynamic_batching", "sequence_batching", "instance_group")


@dataclass(frozen=True)
class StepTensor:
    """What a model says of one of its tensors; -1 in `dims` is any size, without the batch dimension."""

    data_type: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """What a served model takes and makes. Equal interfaces can take each other's place in an ensemble."""

    max_batch_size: int
    inputs: Mapping[str, StepTensor]
    outputs: Mapping[str, StepTensor]
    is_decoupled: bool = False

    @staticmethod
    def of(config: ModelConfig) -> Interface:
        """Of a complete configuration."""
        return Interface(
            config.max_batch_size,
            _tensors(config.input),
            _tensors(config.output),
            config.model_transaction_policy.decoupled,
        )


@dataclass(frozen=True)
class _Place:
    """Where an ensemble's tensor is made or taken, in words, with what is known of it in the ensemble's terms."""

    where: str
    data_type: DataType
    dims: tuple[int, ...]
    of_any_rank: bool = False


def is_ensemble(config: ModelConfig) -> bool:
    """Whether a configuration, complete or not, is that of an ensemble."""
    return config.platform == PLATFORM or config.HasField("ensemble_scheduling")


def step_models(config: ModelConfig) -> list[StepModel]:
    """The models that an ensemble needs, each once; none for any other model."""
    return list(dict.fromkeys((step.model_name, _version(step)) for step in config.ensemble_scheduling.step))


def complete_ensemble(
    source: ConfigSource, models: Mapping[StepModel, Interface | RepositoryError], *, model: str
) -> ModelConfig:
    """Check an ensemble against its steps' models, and fill in types and dims that it leaves out.

    `models` has an entry for each of `step_models`. Its steps come out in an order in which each follows those that it
    takes from. Raises RepositoryError: a ConfigError that names the step and the tensor, or that of a missing model.
    """
    config = ModelConfig()
    config.CopyFrom(source.message)
    config.name, config.platform = model, PLATFORM
    _check_form(source, config)
    interfaces = _find_models(source, config, models)
    _check_batch_sizes(source, config, interfaces)
    makers = _find_makers(source, config)
    order = _order_steps(source, config, makers)
    made = _check_tensors(source, config, interfaces, makers, order)
    _check_outputs(source, config, made)
    steps = [config.ensemble_scheduling.step[index] for index in order]
    ordered = ModelEnsembling(step=steps)
    config.ensemble_scheduling.CopyFrom(ordered)
    if not config.version_policy.WhichOneof("policy_choice"):
        config.version_policy.latest.num_versions = 1
    return config


def core_steps(config: ModelConfig) -> list[EnsembleStep]:
    """The core's form of a complete configuration's steps."""
    from gristmill._core import EnsembleStep

    return [
        EnsembleStep(
            model=step.model_name,
            version=_version(step),
            inputs=dict(step.input_map),
            outputs=dict(step.output_map),
        )
        for step in config.ensemble_scheduling.step
    ]


def _version(step: ModelEnsembling.Step) -> str:
    return str(step.model_version) if step.model_version > 0 else ""


def _tensors(tensors: Sequence[ModelInput | ModelOutput]) -> dict[str, StepTensor]:
    return {tensor.name: StepTensor(tensor.data_type, tuple(tensor.dims)) for tensor in tensors}


def _step_path(index: int) -> FieldPath:
    return ("ensemble_scheduling", 0), ("step", index)


def _called(config: ModelConfig, index: int) -> str:
    return f"step {index + 1} ('{config.ensemble_scheduling.step[index].model_name}')"


def _check_form(source: ConfigSource, config: ModelConfig) -> None:
    if source.message.platform not in ("", PLATFORM):
        raise source.error((("platform", 0),), f"expected '{PLATFORM}', got '{source.message.platform}'")
    given = {field.name for field, _ in config.ListFields()}
    for name in _NEEDS_NO:
        if name in given:
            raise source.error(((name, 0),), "an ensemble has none of its own; its steps' models have")
    for name in ("response_cache", "parameters", "model_transaction_policy"):
        if name in given:
            raise source.error(((name, 0),), "is not supported for an ensemble; its steps' models may have it")
    for name in ("input", "output"):
        if name not in given:
            raise source.error((), f"an ensemble needs at least one {name}")
    if not config.ensemble_scheduling.step:
        raise source.error((("ensemble_scheduling", 0),), "expected at least one step")
    for index, step in enumerate(config.ensemble_scheduling.step):
        if not step.model_name:
            raise source.error((*_step_path(index), ("model_name", 0)), "names no model")
        if step.model_version < -1:
            raise source.error(
                (*_step_path(index), ("model_version", 0)),
                f"expected a version, or -1 for the newest, got {step.model_version}",
            )


def _find_models(
    source: ConfigSource, config: ModelConfig, models: Mapping[StepModel, Interface | RepositoryError]
) -> list[Interface]:
    found = []
    for index, step in enumerate(config.ensemble_scheduling.step):
        interface = models[step.model_name, _version(step)]
        if isinstance(interface, RepositoryError):
            raise RepositoryError(interface.code, f"{_called(config, index)}: {interface.message}")
        if interface.is_decoupled:
            raise source.error(
                _step_path(index), f"{_called(config, index)} may answer any number of times; expected once"
            )
        for kind, mapping, tensors in (
            ("input", step.input_map, interface.inputs),
            ("output", step.output_map, interface.outputs),
        ):
            for name, tensor in mapping.items():
                path = (*_step_path(index), (f"{kind}_map", 0))
                if name not in tensors:
                    raise source.error(
                        path, f"{_called(config, index)} has no {kind} '{name}'; it has {', '.join(tensors)}"
                    )
                if not tensor:
                    raise source.error(path, f"{_called(config, index)}: {kind} '{name}' is given no tensor")
        for name in interface.inputs.keys() - step.input_map.keys():
            raise source.error(_step_path(index), f"{_called(config, index)} has an input '{name}', not in input_map")
        if not step.output_map:
            raise source.error(_step_path(index), f"{_called(config, index)} has no output_map, so nobody needs it")
        found.append(interface)
    return found


def _check_batch_sizes(source: ConfigSource, config: ModelConfig, interfaces: Sequence[Interface]) -> None:
    for index, interface in enumerate(interfaces):
        if interface.max_batch_size < config.max_batch_size:
            raise source.error(
                (("max_batch_size", 0),),
                f"{config.max_batch_size} is more than {_called(config, index)} takes, {interface.max_batch_size}",
            )


def _find_makers(source: ConfigSource, config: ModelConfig) -> dict[str, int]:
    """Which step makes a tensor; -1 for the ensemble's inputs."""
    makers = {tensor.name: -1 for tensor in config.input}
    for index, step in enumerate(config.ensemble_scheduling.step):
        for tensor in step.output_map.values():
            if tensor in makers:
                other = (
                    "an input of the ensemble" if makers[tensor] < 0 else f"made by {_called(config, makers[tensor])}"
                )
                raise source.error(
                    (*_step_path(index), ("output_map", 0)),
                    f"{_called(config, index)} makes '{tensor}', which is {other} already",
                )
            makers[tensor] = index
    return makers


def _order_steps(source: ConfigSource, config: ModelConfig, makers: Mapping[str, int]) -> list[int]:
    graph: dict[int, set[int]] = {}
    used: set[str] = set()
    for index, step in enumerate(config.ensemble_scheduling.step):
        for tensor in step.input_map.values():
            if tensor not in makers:
                raise source.error(
                    (*_step_path(index), ("input_map", 0)),
                    f"{_called(config, index)} takes '{tensor}', which no step makes and which is no input",
                )
        used.update(step.input_map.values())
        graph[index] = {makers[tensor] for tensor in step.input_map.values()} - {-1}
    for number, given in enumerate(config.input):
        if given.name not in used:
            raise source.error((("input", number),), f"no step takes '{given.name}'")
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(_called(config, index) for index in error.args[1])
        raise source.error((("ensemble_scheduling", 0),), f"steps take from each other in a circle: {cycle}") from error


def _check_tensors(
    source: ConfigSource,
    config: ModelConfig,
    interfaces: Sequence[Interface],
    makers: Mapping[str, int],
    order: Sequence[int],
) -> dict[str, _Place]:
    """Follow every tensor from who makes it to who takes it. Returns where each is made."""
    made: dict[str, _Place] = {}
    for given in config.input:
        taken = next(_takers(config, interfaces, given.name))
        _fill_in(given, taken)
        made[given.name] = _Place(f"input '{given.name}' of the ensemble", given.data_type, tuple(given.dims))
    for index in order:
        interface, step = interfaces[index], config.ensemble_scheduling.step[index]
        for name, tensor_name in step.output_map.items():
            made[tensor_name] = _place(config, index, interface, interface.outputs[name], f"output '{name}'")
    for tensor_name in makers:
        for taken in _takers(config, interfaces, tensor_name):
            if problem := _mismatch(made[tensor_name], taken):
                raise source.error((("ensemble_scheduling", 0),), f"tensor '{tensor_name}': {problem}")
    return made


def _check_outputs(source: ConfigSource, config: ModelConfig, made: Mapping[str, _Place]) -> None:
    for index, tensor in enumerate(config.output):
        if tensor.name not in made:
            raise source.error((("output", index),), f"no step makes '{tensor.name}'")
        _fill_in(tensor, made[tensor.name])
        asked = _Place(f"output '{tensor.name}' of the ensemble", tensor.data_type, tuple(tensor.dims))
        if problem := _mismatch(made[tensor.name], asked):
            raise source.error((("output", index),), problem)


def _takers(config: ModelConfig, interfaces: Sequence[Interface], tensor_name: str) -> Iterator[_Place]:
    for index, step in enumerate(config.ensemble_scheduling.step):
        for name, taken in step.input_map.items():
            if taken == tensor_name:
                interface = interfaces[index]
                yield _place(config, index, interface, interface.inputs[name], f"input '{name}'")


def _place(config: ModelConfig, index: int, interface: Interface, tensor: StepTensor, what: str) -> _Place:
    """The batch dimension is part of a tensor where the ensemble has none and the model has one."""
    is_whole = config.max_batch_size == 0 and interface.max_batch_size > 0
    dims = (-1, *tensor.dims) if is_whole else tensor.dims
    # Outputs without dims are those whose exporter has not said.
    of_any_rank = what.startswith("output") and not tensor.dims
    return _Place(f"{what} of {_called(config, index)}", tensor.data_type, dims, of_any_rank)


def _fill_in(tensor: ModelInput | ModelOutput, known: _Place) -> None:
    if tensor.data_type == DataType.TYPE_INVALID:
        tensor.data_type = known.data_type
    if not tensor.dims:
        tensor.dims.extend(known.dims)


def _mismatch(made: _Place, taken: _Place) -> str | None:
    if made.data_type != taken.data_type:
        names = DataType.Name(made.data_type), DataType.Name(taken.data_type)
        return f"{made.where} is {names[0]}, {taken.where} is {names[1]}"
    if made.of_any_rank:
        return None
    fits = len(made.dims) == len(taken.dims) and all(
        a == b or -1 in (a, b) for a, b in zip(made.dims, taken.dims, strict=True)
    )
    return None if fits else f"{made.where} is {list(made.dims)}, {taken.where} is {list(taken.dims)}"
