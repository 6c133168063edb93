# SPDX-License-Identifier: Apache-2.0
"""Models written in Python: what they take and make is in their configuration, which they may complete themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from gristmill_protos.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

from gristmill.core import python_worker
from gristmill.repository.config_source import ConfigSource, parse_json
from gristmill.repository.errors import ConfigError
from gristmill.repository.signature import Tensor, protocol_datatype

_COMPLETES = "auto_complete_config"
_ENVIRONMENT = "EXECUTION_ENV_PATH"

# A model that imports a large framework takes a while, and one that waits for something would do so for ever.
_COMPLETION_LIMIT_S = 300

_LONG = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}


@dataclass(frozen=True)
class _DeclaredTensor:
    name: str
    datatype: str
    dims: Sequence[int]


@dataclass(frozen=True)
class _DeclaredSignature:
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


def complete_python_source(source: ConfigSource, path: Path, model: str) -> ConfigSource:
    """The configuration as `auto_complete_config` of the model.py at `path` leaves it, if there is one.

    Runs it in a process of its own. Raises ConfigError with the last lines of its traceback.
    """
    if _COMPLETES not in path.read_text(encoding="utf-8", errors="replace"):
        return source
    python, worker = python_worker()
    parameters = source.message.parameters
    if _ENVIRONMENT in parameters:
        python = f"{parameters[_ENVIRONMENT].string_value}/bin/python"
    task = json.dumps({"path": str(path), "config": _to_dict(source.message)})
    try:
        done = subprocess.run(
            [python, worker, "--complete"],
            input=task,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_COMPLETION_LIMIT_S,
            check=False,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path}: {_COMPLETES}: {error}") from error
    if "error" in answer:
        raise ConfigError(f"{path}: {_COMPLETES}:\n{answer['error']}")
    completed = parse_json(json.dumps(answer["config"]), model)
    return ConfigSource(completed.message, f"{_COMPLETES} of {path}", True, True)


def declared_signature(source: ConfigSource) -> _DeclaredSignature:
    """What the configuration says, in place of what a model file would. Raises ConfigError if that is not all."""
    config = source.message
    for kind, tensors in (("input", config.input), ("output", config.output)):
        if not tensors:
            raise source.error(
                (),
                f"a model in Python has no {kind} unless config.pbtxt or {_COMPLETES} gives it; expected at least one",
            )
    batch = [-1] if config.max_batch_size > 0 else []
    return _DeclaredSignature(
        [_declare(source, ("input", index), tensor, batch) for index, tensor in enumerate(config.input)],
        [_declare(source, ("output", index), tensor, batch) for index, tensor in enumerate(config.output)],
    )


def config_json(config: ModelConfig) -> str:
    """A configuration as models get it: every field that has a default, and numbers as numbers."""
    return json.dumps(_to_dict(config))


def _declare(
    source: ConfigSource, field: tuple[str, int], tensor: ModelInput | ModelOutput, batch: list[int]
) -> _DeclaredTensor:
    if not tensor.data_type:
        raise source.error((field,), f"'{tensor.name}' has no data_type")
    return _DeclaredTensor(tensor.name, protocol_datatype(tensor.data_type), [*batch, *tensor.dims])


def _to_dict(message: Message) -> dict[str, Any]:
    document = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _unquote(message.DESCRIPTOR, document)
    return document


def _unquote(descriptor: Any, document: dict[str, Any]) -> None:
    """JSON as protobuf has it writes 64-bit numbers as texts."""
    for field in descriptor.fields:
        value = document.get(field.name)
        if value is None:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            for item in value.values() if isinstance(value, Mapping) and inner is not None else ():
                _unquote(inner, item)
        elif field.message_type is not None:
            for item in value if isinstance(value, list) else [value]:
                _unquote(field.message_type, item)
        elif field.cpp_type in _LONG:
            document[field.name] = [int(item) for item in value] if isinstance(value, list) else int(value)
