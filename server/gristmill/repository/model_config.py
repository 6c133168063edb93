# SPDX-License-Identifier: Apache-2.0
"""From a configuration as written and a model file as opened to the complete configuration that is served.

What the configuration leaves out is taken from the model file; what both say must agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from gristmill_protos.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
    ModelQueuePolicy,
)

from gristmill.repository.config_source import ConfigSource
from gristmill.repository.errors import ConfigError
from gristmill.repository.rate_limiter import check_rate_limiter
from gristmill.repository.response_cache import PARAMETERS, check_response_cache
from gristmill.repository.sequences import complete_sequences, hidden_inputs, hidden_outputs
from gristmill.repository.signature import DATA_TYPES, PROTOCOL_NAMES, Signature, Tensor

#: Backends in the order in which their files are preferred: file name, and Triton's name of the platform.
BACKENDS: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("model.onnx", "onnxruntime_onnx"),
    "python": ("model.py", "python"),
    "sim": ("model.sim", "sim"),
}

# Each has counters of its own in every queue.
_MOST_PRIORITY_LEVELS = 1000


@dataclass(frozen=True)
class ModelFile:
    """Which backend opens which file of a version, and with which parameters."""

    backend: str
    file_name: str
    parameters: Mapping[str, str]


def choose_model_file(source: ConfigSource, file_names: Sequence[str]) -> ModelFile:
    """Pick the file and the backend of a version that has `file_names`. Raises ConfigError."""
    config = source.message
    backend = _named_backend(source)
    wanted = config.default_model_filename
    if wanted:
        pure = PurePosixPath(wanted)
        if pure.is_absolute() or ".." in pure.parts or str(pure) != wanted:
            raise source.error((("default_model_filename", 0),), f"'{wanted}' must name a file inside the version")
        backend = backend or _backend_of_extension(source, pure.suffix)
        candidates = [(backend, wanted)]
    else:
        candidates = [(name, file) for name, (file, _) in BACKENDS.items() if backend in ("", name)]
    for name, file in candidates:
        if file in file_names:
            parameters = {
                key: parameter.string_value for key, parameter in config.parameters.items() if key not in PARAMETERS
            }
            return ModelFile(name, file, parameters)
    expected = " or ".join(file for _, file in candidates)
    raise ConfigError(f"no model file: expected {expected}, the version has {', '.join(file_names) or 'no files'}")


def complete_config(
    source: ConfigSource, signature: Signature, file: ModelFile, *, model: str, default_max_batch_size: int
) -> ModelConfig:
    """Fill in what the configuration leaves out and check the rest against the model file.

    A model whose inputs and outputs all have a first dimension of any size can be batched. Without a configuration it
    gets max_batch_size `default_max_batch_size` and dynamic batching. A configuration without max_batch_size gets the
    same size, unless the dims that it gives include the batch dimension; requests are combined only if it says
    dynamic_batching. Raises ConfigError.
    """
    config = ModelConfig()
    config.CopyFrom(source.message)
    config.name = model
    config.backend = file.backend
    config.platform = config.platform or BACKENDS[file.backend][1]
    config.default_model_filename = file.file_name
    if not source.batch_size_given and default_max_batch_size > 0 and _is_batchable(config, signature):
        config.max_batch_size = default_max_batch_size
        if not source.given:
            config.dynamic_batching.SetInParent()
    complete_sequences(source, config, signature)
    _complete_inputs(source, config, signature)
    _complete_outputs(source, config, signature)
    _check_batching(source, config)
    _check_decoupled(source, config)
    check_response_cache(source, config)
    if not config.version_policy.WhichOneof("policy_choice"):
        config.version_policy.latest.num_versions = 1
    if not config.instance_group:
        config.instance_group.add()
    check_rate_limiter(source)
    for index, group in enumerate(config.instance_group):
        group.name = group.name or f"{model}_{index}"
        group.kind = ModelInstanceGroup.KIND_CPU
        group.count = group.count or 1
    return config


def _named_backend(source: ConfigSource) -> str:
    """The backend that the configuration asks for, or "" if it leaves the choice to the file."""
    backend, platform = source.message.backend, source.message.platform
    platforms = {name: key for key, (_, name) in BACKENDS.items()}
    if backend and backend not in BACKENDS:
        raise source.error((("backend", 0),), f"expected one of {', '.join(BACKENDS)}, got '{backend}'")
    if platform and platform not in platforms:
        raise source.error((("platform", 0),), f"expected one of {', '.join(platforms)}, got '{platform}'")
    if backend and platform and platforms[platform] != backend:
        raise source.error((("platform", 0),), f"'{platform}' contradicts backend '{backend}'; give one of the two")
    return backend or platforms.get(platform, "")


def _backend_of_extension(source: ConfigSource, extension: str) -> str:
    known = {PurePosixPath(file).suffix: name for name, (file, _) in BACKENDS.items()}
    if extension not in known:
        raise source.error(
            (("default_model_filename", 0),),
            f"expected a name that ends in {' or '.join(known)}, or a backend as well, "
            f"got '{source.message.default_model_filename}'",
        )
    return known[extension]


def _is_batchable(config: ModelConfig, signature: Signature) -> bool:
    tensors = [*signature.inputs, *signature.outputs]
    ranks = {tensor.name: len(tensor.dims) for tensor in tensors}
    written: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    written_whole = any(tensor.dims and len(tensor.dims) == ranks.get(tensor.name) for tensor in written)
    return not written_whole and all(tensor.dims and tensor.dims[0] == -1 for tensor in tensors)


def _complete_inputs(source: ConfigSource, config: ModelConfig, signature: Signature) -> None:
    given = {tensor.name for tensor in config.input}
    _check_names(source, "input", [tensor.name for tensor in config.input], signature.inputs)
    actual = {tensor.name: tensor for tensor in signature.inputs}
    for index, tensor in enumerate(config.input):
        _complete_tensor(source, ("input", index), tensor, actual[tensor.name], config.max_batch_size)
    given |= hidden_inputs(config)
    for missing in (tensor for tensor in signature.inputs if tensor.name not in given):
        added = config.input.add(name=missing.name)
        _complete_tensor(source, ("input", len(config.input) - 1), added, missing, config.max_batch_size)


def _complete_outputs(source: ConfigSource, config: ModelConfig, signature: Signature) -> None:
    """Outputs that are given are those served; only if none is, all are."""
    _check_names(source, "output", [tensor.name for tensor in config.output], signature.outputs)
    if not config.output:
        shown = (tensor.name for tensor in signature.outputs if tensor.name not in hidden_outputs(config))
        config.output.extend(ModelOutput(name=name) for name in shown)
    actual = {tensor.name: tensor for tensor in signature.outputs}
    for index, tensor in enumerate(config.output):
        _complete_tensor(source, ("output", index), tensor, actual[tensor.name], config.max_batch_size)


def _check_names(source: ConfigSource, kind: str, given: Sequence[str], actual: Sequence[Tensor]) -> None:
    names = [tensor.name for tensor in actual]
    for index, name in enumerate(given):
        if name not in names:
            raise source.error(((kind, index),), f"the model file has no {kind} '{name}'; it has {', '.join(names)}")


def _complete_tensor(
    source: ConfigSource, field: tuple[str, int], tensor: ModelInput | ModelOutput, actual: Tensor, max_batch_size: int
) -> None:
    batched = max_batch_size > 0
    if actual.datatype not in DATA_TYPES:
        raise source.error((field,), f"'{tensor.name}' has datatype {actual.datatype}, which the protocol cannot carry")
    if tensor.data_type == DataType.TYPE_INVALID:
        tensor.data_type = DATA_TYPES[actual.datatype]
    elif PROTOCOL_NAMES[tensor.data_type] != actual.datatype:
        expected = DataType.Name(DATA_TYPES[actual.datatype])
        raise source.error(
            (field, ("data_type", 0)),
            f"'{tensor.name}' is {expected} in the model file, not {DataType.Name(tensor.data_type)}",
        )
    dims = list(actual.dims)
    if field[0] == "output" and not dims:
        return  # of unknown rank, as some exporters leave it
    if batched:
        # What an exporter declares for an output is a hint (some declare [1] and return [N]); an input is what it says.
        batch_of_one = max_batch_size == 1 and dims[:1] == [1]
        if field[0] == "input" and dims[:1] != [-1] and not batch_of_one:
            raise source.error(
                (("max_batch_size", 0),),
                f"the model cannot be batched: input '{tensor.name}' is {dims} in the model file, and a first "
                "dimension of any size (-1) is needed; set max_batch_size: 0",
            )
        dims = dims[1:]
    if not tensor.dims:
        tensor.dims.extend(dims)
    elif not _dims_fit(field[0], list(tensor.dims), dims):
        without = " without the batch dimension" if batched else ""
        raise source.error(
            (field, ("dims", 0)),
            f"'{tensor.name}' is {dims}{without} in the model file, the configuration says {list(tensor.dims)}",
        )


def _dims_fit(kind: str, configured: Sequence[int], actual: Sequence[int]) -> bool:
    """A configuration may narrow what is of any size; for outputs, which are not checked, it may also widen."""
    return len(configured) == len(actual) and all(
        real in (-1, said) or (said == -1 and kind == "output") for said, real in zip(configured, actual, strict=True)
    )


def _check_decoupled(source: ConfigSource, config: ModelConfig) -> None:
    if not config.model_transaction_policy.decoupled:
        return
    field = (("model_transaction_policy", 0), ("decoupled", 0))
    if config.backend != "python":
        raise source.error(field, f"a model of backend '{config.backend}' answers a request once; remove it")
    for other in ("sequence_batching", "response_cache"):
        if config.HasField(other):
            raise source.error(field, f"does not go with {other}")
    if config.dynamic_batching.preserve_ordering:
        raise source.error(field, "does not go with dynamic_batching.preserve_ordering")


def _check_batching(source: ConfigSource, config: ModelConfig) -> None:
    if not config.HasField("dynamic_batching"):
        return
    if config.max_batch_size == 0:
        raise source.error((("dynamic_batching", 0),), "needs a max_batch_size of 1 or more; the model has none")
    for size in config.dynamic_batching.preferred_batch_size:
        if not 1 <= size <= config.max_batch_size:
            raise source.error(
                (("dynamic_batching", 0), ("preferred_batch_size", 0)),
                f"expected sizes from 1 to max_batch_size ({config.max_batch_size}), got {size}",
            )
    _check_priorities(source, config.dynamic_batching)


def _check_priorities(source: ConfigSource, batching: ModelDynamicBatching) -> None:
    """The rules of Triton."""
    levels, default = batching.priority_levels, batching.default_priority_level
    field = ("dynamic_batching", 0)
    if levels == 0 and default != 0:
        raise source.error((field, ("default_priority_level", 0)), "needs priority_levels, which are not given")
    if levels > _MOST_PRIORITY_LEVELS:
        raise source.error((field, ("priority_levels", 0)), f"expected at most {_MOST_PRIORITY_LEVELS}, got {levels}")
    if levels > 0 and not 1 <= default <= levels:
        raise source.error(
            (field, ("default_priority_level", 0)), f"expected 1 to priority_levels ({levels}), got {default}"
        )
    for priority in batching.priority_queue_policy:
        if not 1 <= priority <= levels:
            raise source.error(
                (field, ("priority_queue_policy", 0)),
                f"expected keys from 1 to priority_levels ({levels}), got {priority}",
            )
    if not batching.preserve_ordering:
        return
    if levels > 1:
        raise source.error((field, ("preserve_ordering", 0)), "allows one priority level only, since others overtake")
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    if any(policy.timeout_action == ModelQueuePolicy.DELAY for policy in policies):
        raise source.error((field, ("preserve_ordering", 0)), "does not go with timeout_action DELAY, which reorders")
