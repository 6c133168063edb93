# SPDX-License-Identifier: Apache-2.0
"""A model configuration as it was written: config.pbtxt, or JSON sent with a load request.

Parsing refuses what this server does not serve, field by field, rather than ignoring it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from gristmill_protos.model_config_pb2 import ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput

from gristmill.repository.errors import ConfigError

# Where a field stands in a configuration: (name, index among its repetitions) from the top down.
FieldPath = tuple[tuple[str, int], ...]

# The fields that may be set. None: with anything below it.
_Supported = Mapping[str, "_Supported | None"]
_SUPPORTED: _Supported = {
    "name": None,
    "platform": None,
    "backend": None,
    "version_policy": None,
    "max_batch_size": None,
    "input": {"name": None, "data_type": None, "dims": None},
    "output": {"name": None, "data_type": None, "dims": None},
    "dynamic_batching": {
        "preferred_batch_size": None,
        "max_queue_delay_microseconds": None,
        "preserve_ordering": None,
        "priority_levels": None,
        "default_priority_level": None,
        "default_queue_policy": None,
        "priority_queue_policy": None,
    },
    "sequence_batching": {
        "max_sequence_idle_microseconds": None,
        "control_input": None,
        "state": {"input_name": None, "output_name": None, "data_type": None, "dims": None, "initial_state": None},
        "direct": {"max_queue_delay_microseconds": None},
        "oldest": {
            "max_candidate_sequences": None,
            "preferred_batch_size": None,
            "max_queue_delay_microseconds": None,
        },
    },
    "ensemble_scheduling": {
        "step": {"model_name": None, "model_version": None, "input_map": None, "output_map": None},
    },
    "instance_group": {
        "name": None,
        "kind": None,
        "count": None,
        "host_policy": None,
        "rate_limiter": {"resources": {"name": None, "global": None, "count": None}, "priority": None},
    },
    "response_cache": {"enable": None},
    "model_transaction_policy": {"decoupled": None},
    "default_model_filename": None,
    "parameters": None,
}
_KINDS = {ModelInstanceGroup.KIND_AUTO, ModelInstanceGroup.KIND_CPU}

_TOKEN = re.compile(
    r"""(?s)#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|[{}<>\[\]:;,]|[^\s{}<>\[\]:;,#"']+"""
)


@dataclass(frozen=True)
class ConfigSource:
    """A parsed configuration that keeps to what is supported, and where each field was written.

    `given` tells a written configuration from the absence of one, `batch_size_given` an explicit max_batch_size, 0
    included, from none: both decide what may be derived from the model. `origin` names the text in messages.
    """

    message: ModelConfig
    origin: str
    given: bool = True
    batch_size_given: bool = False
    lines: Mapping[FieldPath, int] = field(default_factory=dict)

    @staticmethod
    def absent(model: str) -> ConfigSource:
        """The configuration of a model that has none: everything is derived."""
        return ConfigSource(ModelConfig(), f"configuration derived for model '{model}'", given=False)

    def error(self, path: FieldPath, message: str) -> ConfigError:
        """An error about the field at `path`, with its line where that is known."""
        name = ".".join(f"{name}[{index}]" if index else name for name, index in path)
        where = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        origin = f"{self.origin}:{where}" if where is not None else self.origin
        return ConfigError(f"{origin}: {name}: {message}" if name else f"{origin}: {message}")


def parse_text(text: str, origin: str, model: str) -> ConfigSource:
    """Parse config.pbtxt. `origin` is the path shown in messages. Raises ConfigError."""
    message = ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line = error.GetLine()
        # The library repeats line and column at the head of its text.
        detail = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise ConfigError(f"{origin}:{line}: {detail}" if line is not None else f"{origin}: {detail}") from error
    lines = _field_lines(text)
    source = ConfigSource(message, origin, True, (("max_batch_size", 0),) in lines, lines)
    _validate(source, model)
    return source


def parse_json(text: str, model: str) -> ConfigSource:
    """Parse the JSON form that load requests carry (field names snake_case or camelCase). Raises ConfigError."""
    origin = f"config parameter of the load request for model '{model}'"
    message = ModelConfig()
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ConfigError(f"{origin}: expected a JSON object, got {type(document).__name__}")
        json_format.ParseDict(document, message)
    except (ValueError, json_format.ParseError) as error:
        # The library goes on with a list of every field there is.
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}") from error
    source = ConfigSource(message, origin, True, bool({"max_batch_size", "maxBatchSize"} & document.keys()))
    _validate(source, model)
    return source


def _validate(source: ConfigSource, model: str) -> None:
    for path, reason in _unsupported(source.message, _SUPPORTED, ()):
        raise source.error(path, reason)
    message = source.message
    if message.name and message.name != model:
        raise source.error((("name", 0),), f"expected '{model}' as the directory is called, got '{message.name}'")
    if message.max_batch_size < 0:
        raise source.error((("max_batch_size", 0),), f"expected 0 or more, got {message.max_batch_size}")
    _validate_tensors(source)
    _validate_version_policy(source)
    for index, group in enumerate(message.instance_group):
        if group.kind not in _KINDS:
            kind = ModelInstanceGroup.Kind.Name(group.kind)
            raise source.error(
                (("instance_group", index), ("kind", 0)), f"{kind} is not supported; expected KIND_CPU or KIND_AUTO"
            )
        if group.count < 0:
            raise source.error((("instance_group", index), ("count", 0)), f"expected 1 or more, got {group.count}")


def _validate_tensors(source: ConfigSource) -> None:
    kinds: dict[str, Sequence[ModelInput | ModelOutput]] = {
        "input": source.message.input,
        "output": source.message.output,
    }
    for kind, tensors in kinds.items():
        seen: set[str] = set()
        for index, tensor in enumerate(tensors):
            if not tensor.name:
                raise source.error(((kind, index),), "has no name; give the tensor's name in the model file")
            if tensor.name in seen:
                raise source.error(((kind, index),), f"'{tensor.name}' is given twice")
            seen.add(tensor.name)
            if any(dim == 0 or dim < -1 for dim in tensor.dims):
                raise source.error(
                    ((kind, index), ("dims", 0)),
                    f"expected positive sizes, or -1 for any, got {list(tensor.dims)}",
                )


def _validate_version_policy(source: ConfigSource) -> None:
    policy = source.message.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "latest" and policy.latest.num_versions == 0:
        raise source.error((("version_policy", 0), ("latest", 0)), "num_versions must be 1 or more")
    if choice == "specific" and (not policy.specific.versions or min(policy.specific.versions) < 1):
        raise source.error(
            (("version_policy", 0), ("specific", 0)),
            f"expected versions of 1 or more, got {list(policy.specific.versions)}",
        )


def _unsupported(message: Message, supported: _Supported, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    for descriptor, value in message.ListFields():
        repeated = not isinstance(value, (Message, str, bytes, int, float))
        is_map = repeated and hasattr(value, "items")
        if descriptor.name not in supported:
            yield (*path, (descriptor.name, 0)), "is not supported by this server; remove it"
            continue
        below = supported[descriptor.name]
        if below is None or is_map:
            continue
        for index, element in enumerate(value if repeated else [value]):
            yield from _unsupported(element, below, (*path, (descriptor.name, index)))


def _field_lines(text: str) -> dict[FieldPath, int]:
    """The line of each field of a text that has parsed. A list of scalars counts as one field."""
    lines: dict[FieldPath, int] = {}
    counts: dict[tuple[FieldPath, str], int] = {}
    stack: list[tuple[FieldPath, str]] = []  # the message that was being read, and its field that is open
    here: FieldPath = ()
    name = ""
    expects_value = False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token.startswith("#"):
            continue
        if token in ("{", "<"):
            index = counts.get((here, name), 0)
            counts[here, name] = index + 1
            stack.append((here, name))
            here = (*here, (name, index))
            lines.setdefault(here, text.count("\n", 0, match.start()) + 1)
            expects_value = False
        elif token in ("}", ">") and stack:
            here, name = stack.pop()
        elif token in (":", "["):
            expects_value = True
        elif token in ("]", ";", ",") or expects_value:
            expects_value = token == ","
        elif token[0].isalpha() or token[0] == "_":
            name = token
            lines.setdefault((*here, (name, counts.get((here, name), 0))), text.count("\n", 0, match.start()) + 1)
    return lines
