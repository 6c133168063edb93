# SPDX-License-Identifier: Apache-2.0
"""`sequence_batching`: its tensors checked against the model file, and what the core is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gristmill_protos.model_config_pb2 import DataType, ModelConfig, ModelSequenceBatching

from gristmill.repository.config_source import ConfigSource, FieldPath
from gristmill.repository.errors import ConfigError
from gristmill.repository.signature import Signature, Tensor, config_datatype, protocol_datatype

if TYPE_CHECKING:
    from gristmill._core import SequenceOptions

#: As in Triton: a second.
_DEFAULT_IDLE_US = 1_000_000
#: Where files of initial states are, in the model's directory.
_INITIAL_STATES = "initial_state"
_FIELD: FieldPath = (("sequence_batching", 0),)

_Control = ModelSequenceBatching.Control
_KINDS = {
    _Control.CONTROL_SEQUENCE_START: "start",
    _Control.CONTROL_SEQUENCE_READY: "ready",
    _Control.CONTROL_SEQUENCE_END: "end",
    _Control.CONTROL_SEQUENCE_CORRID: "corrid",
}
#: The field that gives "no" and "yes", by the type of the input.
_VALUES = {
    DataType.TYPE_INT32: "int32_false_true",
    DataType.TYPE_FP32: "fp32_false_true",
    DataType.TYPE_BOOL: "bool_false_true",
}
_CORRELATION_ID_TYPES = (
    DataType.TYPE_UINT64,
    DataType.TYPE_INT64,
    DataType.TYPE_UINT32,
    DataType.TYPE_INT32,
    DataType.TYPE_STRING,
)
_SIZES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2}
_SIZES |= {"UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8}


def hidden_inputs(config: ModelConfig) -> set[str]:
    """Inputs of the model that its callers do not see."""
    batching = config.sequence_batching
    return {control.name for control in batching.control_input} | {state.input_name for state in batching.state}


def hidden_outputs(config: ModelConfig) -> set[str]:
    """Outputs of the model that its callers see only if the configuration lists them."""
    return {state.output_name for state in config.sequence_batching.state}


def complete_sequences(source: ConfigSource, config: ModelConfig, signature: Signature) -> None:
    """Check `sequence_batching`, if there is one, against the model file, and fill in what it leaves out.

    Raises ConfigError.
    """
    if not config.HasField("sequence_batching"):
        return
    batching = config.sequence_batching
    batching.max_sequence_idle_microseconds = batching.max_sequence_idle_microseconds or _DEFAULT_IDLE_US
    if batching.WhichOneof("strategy_choice") is None:
        batching.direct.SetInParent()
    if batching.oldest.max_candidate_sequences < 0:
        raise source.error((*_FIELD, ("oldest", 0)), "max_candidate_sequences must not be negative")
    inputs_by_name = {tensor.name: tensor for tensor in signature.inputs}
    outputs_by_name = {tensor.name: tensor for tensor in signature.outputs}
    given = [tensor.name for tensor in config.input]
    names = [control.name for control in batching.control_input] + [state.input_name for state in batching.state]
    for name in names:
        if names.count(name) > 1 or name in given:
            raise source.error(_FIELD, f"input '{name}' is given twice, as an input, a control or a state")
    for index, control in enumerate(batching.control_input):
        path = (*_FIELD, ("control_input", index))
        actual = _existing(source, path, "input", control.name, inputs_by_name)
        _complete_control(source, path, control, actual, config.max_batch_size > 0)
    for index, state in enumerate(batching.state):
        path = (*_FIELD, ("state", index))
        taken = _existing(source, path, "input", state.input_name, inputs_by_name)
        made = _existing(source, path, "output", state.output_name, outputs_by_name)
        if taken.datatype != made.datatype:
            raise source.error(
                path, f"'{state.input_name}' is {taken.datatype}, but '{state.output_name}' is {made.datatype}"
            )
        _complete_state(source, path, state, taken, config.max_batch_size > 0)


def core_sequences(config: ModelConfig, model_directory: Path) -> SequenceOptions | None:
    """The core's form of a complete configuration's `sequence_batching`; None if there is none.

    Reads the files of initial states. Raises ConfigError or OSError.
    """
    from gristmill._core import ControlInput, SequenceOptions, StateTensor, TensorSpec

    if not config.HasField("sequence_batching"):
        return None
    batching = config.sequence_batching
    controls = []
    for item in batching.control_input:
        control = item.control[0]
        off, on = _false_true(control)
        # One element a row, in as many dimensions as the model file has.
        tensor = TensorSpec(item.name, protocol_datatype(control.data_type), [1])
        controls.append(ControlInput(kind=_KINDS[control.kind], tensor=tensor, off=off, on=on))
    states = []
    for state in batching.state:
        dims = _initial_dims(state)
        datatype = protocol_datatype(state.data_type)
        states.append(
            StateTensor(
                input=TensorSpec(state.input_name, datatype, list(state.dims)),
                output_name=state.output_name,
                initial_dims=dims,
                initial_data=_initial_data(state, dims, datatype, model_directory),
            )
        )
    is_oldest = batching.WhichOneof("strategy_choice") == "oldest"
    slots = batching.oldest.max_candidate_sequences if is_oldest else 0
    return SequenceOptions(
        max_idle_us=batching.max_sequence_idle_microseconds,
        max_sequences_per_instance=slots or max(config.max_batch_size, 1),
        controls=controls,
        states=states,
    )


def _existing(source: ConfigSource, path: FieldPath, kind: str, name: str, actual: Mapping[str, Tensor]) -> Tensor:
    if name not in actual:
        raise source.error(path, f"the model file has no {kind} '{name}'; it has {', '.join(actual)}")
    return actual[name]


def _complete_control(
    source: ConfigSource,
    path: FieldPath,
    item: ModelSequenceBatching.ControlInput,
    actual: Tensor,
    batched: bool,
) -> None:
    if len(item.control) != 1:
        raise source.error(path, f"expected one control for input '{item.name}', got {len(item.control)}")
    control = item.control[0]
    dims = list(actual.dims)[1:] if batched else list(actual.dims)
    if len(dims) != 1 or dims[0] not in (-1, 1):
        without = " without the batch dimension" if batched else ""
        raise source.error(path, f"expected one element, dims [1]{without}, but '{item.name}' has {dims}")
    is_id = control.kind == _Control.CONTROL_SEQUENCE_CORRID
    given = [data_type for data_type, field in _VALUES.items() if getattr(control, field)]
    if is_id:
        given = [control.data_type] if control.data_type else []
    elif len(given) != 1 or len(getattr(control, _VALUES[given[0]])) != 2:
        raise source.error(path, f"expected two values for no and yes, in one of {', '.join(_VALUES.values())}")
    data_type = config_datatype(actual.datatype)
    if given and given[0] != data_type:
        raise source.error(path, f"'{item.name}' is {DataType.Name(data_type)}, not {DataType.Name(given[0])}")
    if is_id and data_type not in _CORRELATION_ID_TYPES:
        raise source.error(path, f"'{item.name}' is {DataType.Name(data_type)}, which cannot hold a sequence id")
    control.data_type = data_type


def _complete_state(
    source: ConfigSource,
    path: FieldPath,
    state: ModelSequenceBatching.State,
    actual: Tensor,
    batched: bool,
) -> None:
    data_type = config_datatype(actual.datatype)
    if state.data_type not in (DataType.TYPE_INVALID, data_type):
        expected = DataType.Name(data_type)
        raise source.error(path, f"'{state.input_name}' is {expected}, not {DataType.Name(state.data_type)}")
    state.data_type = data_type
    dims = list(actual.dims)[1:] if batched else list(actual.dims)
    if not state.dims:
        state.dims.extend(dims)
    elif len(state.dims) != len(dims) or any(
        real not in (-1, said) for said, real in zip(state.dims, dims, strict=True)
    ):
        without = " without the batch dimension" if batched else ""
        raise source.error(
            path,
            f"'{state.input_name}' is {dims}{without} in the model file, the configuration says {list(state.dims)}",
        )
    if len(state.initial_state) > 1:
        raise source.error(path, f"expected one initial_state, got {len(state.initial_state)}")
    for initial in state.initial_state:
        if initial.data_type not in (DataType.TYPE_INVALID, data_type):
            raise source.error(
                path, f"initial_state has data_type {DataType.Name(initial.data_type)}, not that of the state"
            )
        fits = len(initial.dims) == len(state.dims) and all(
            said in (-1, real) for said, real in zip(state.dims, initial.dims, strict=True)
        )
        if initial.dims and not fits:
            raise source.error(path, f"initial_state has dims {list(initial.dims)}, the state {list(state.dims)}")
    if any(dim < 1 for dim in _initial_dims(state)):
        raise source.error(path, f"the state has dims {list(state.dims)}; give those of initial_state, none of them -1")
    if state.initial_state and state.initial_state[0].data_file:
        pure = PurePosixPath(state.initial_state[0].data_file)
        if pure.is_absolute() or ".." in pure.parts:
            raise source.error(path, f"'{pure}' must name a file inside {_INITIAL_STATES}/")


def _false_true(control: ModelSequenceBatching.Control) -> tuple[float, float]:
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        return 0.0, 1.0
    off, on = getattr(control, _VALUES[control.data_type])
    return float(off), float(on)


def _initial_dims(state: ModelSequenceBatching.State) -> list[int]:
    given = list(state.initial_state[0].dims) if state.initial_state else []
    return given or list(state.dims)


def _initial_data(state: ModelSequenceBatching.State, dims: Sequence[int], datatype: str, directory: Path) -> bytes:
    # A string of no bytes is its length of four, all zero.
    size = math.prod(dims) * _SIZES.get(datatype, 4)
    if not state.initial_state or not state.initial_state[0].data_file:
        return bytes(size)
    path = directory / _INITIAL_STATES / state.initial_state[0].data_file
    data = path.read_bytes()
    if datatype != "BYTES" and len(data) != size:
        raise ConfigError(f"{path}: expected {size} bytes for {datatype}{list(dims)}, got {len(data)}")
    return data
