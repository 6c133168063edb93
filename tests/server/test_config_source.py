# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from google.protobuf import text_format
from gristmill.repository.config_source import parse_json, parse_text
from gristmill.repository.errors import ConfigError
from gristmill_protos.model_config_pb2 import ModelConfig

# One text per field that is not served, with the name the error must give.
UNSUPPORTED = {
    "runtime": 'runtime: "r"',
    "batch_input": "batch_input { kind: BATCH_ITEM_SHAPE }",
    "batch_output": 'batch_output { target_name: "y" }',
    "optimization": "optimization { graph { level: 1 } }",
    "sequence_batching.iterative_sequence": "sequence_batching { iterative_sequence: true }",
    "sequence_batching.direct.minimum_slot_utilization": "sequence_batching { direct { minimum_slot_utilization: 1 } }",
    "sequence_batching.oldest.preserve_ordering": "sequence_batching { oldest { preserve_ordering: true } }",
    "sequence_batching.state.use_growable_memory": "sequence_batching { state { use_growable_memory: true } }",
    "cc_model_filenames": 'cc_model_filenames { key: "7.5" value: "f" }',
    "metric_tags": 'metric_tags { key: "k" value: "v" }',
    "model_warmup": 'model_warmup { name: "w" }',
    "model_operations": 'model_operations { op_library_filename: "f.so" }',
    "model_repository_agents": 'model_repository_agents { agents { name: "a" } }',
    "model_metrics": "model_metrics {}",
    "input.format": 'input { name: "x" format: FORMAT_NCHW }',
    "input.reshape": 'input { name: "x" reshape { shape: [1] } }',
    "input.is_shape_tensor": 'input { name: "x" is_shape_tensor: true }',
    "input.allow_ragged_batch": 'input { name: "x" allow_ragged_batch: true }',
    "input.optional": 'input { name: "x" optional: true }',
    "input.is_non_linear_format_io": 'input { name: "x" is_non_linear_format_io: true }',
    "output.reshape": 'output { name: "y" reshape { } }',
    "output.label_filename": 'output { name: "y" label_filename: "l.txt" }',
    "output.is_shape_tensor": 'output { name: "y" is_shape_tensor: true }',
    "output.is_non_linear_format_io": 'output { name: "y" is_non_linear_format_io: true }',
    "instance_group.gpus": "instance_group { gpus: [0] }",
    "instance_group.secondary_devices": "instance_group { secondary_devices { device_id: 1 } }",
    "instance_group.profile": 'instance_group { profile: "p" }',
    "instance_group.passive": "instance_group { passive: true }",
}
SUPPORTED = """
name: "m"
backend: "sim"
platform: "sim"
version_policy { specific { versions: [1, 2] } }
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [-1, 4] } ]
output [ { name: "y" data_type: TYPE_STRING dims: [1] } ]
dynamic_batching {
  preferred_batch_size: [4, 8]
  max_queue_delay_microseconds: 100
  default_queue_policy { max_queue_size: 10 }
}
instance_group [ { name: "g" kind: KIND_CPU count: 2 } ]
response_cache { enable: true }
model_transaction_policy { decoupled: false }
default_model_filename: "model.sim"
parameters { key: "k" value { string_value: "v" } }
"""
# In place of dynamic_batching.
SUPPORTED_SCHEDULING = (
    """
sequence_batching {
  max_sequence_idle_microseconds: 1
  control_input { name: "c" control { kind: CONTROL_SEQUENCE_CORRID } }
  state { input_name: "i" output_name: "o" initial_state { name: "s" } }
  oldest { max_candidate_sequences: 1 preferred_batch_size: 2 max_queue_delay_microseconds: 3 }
}
""",
    """
ensemble_scheduling {
  step { model_name: "a" model_version: -1 input_map { key: "x" value: "y" } output_map { key: "x" value: "y" } }
}
""",
)


@pytest.mark.parametrize(("field", "text"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_unsupported_field_is_named_with_its_line(field: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_text(f'# a comment {{\nname: "m"\n{text}\n', "repo/m/config.pbtxt", "m")
    assert error.value.message == f"repo/m/config.pbtxt:3: {field}: is not supported by this server; remove it"


def test_every_field_of_the_schema_is_either_supported_or_tested_as_unsupported() -> None:
    accepted = [text_format.Parse(text, ModelConfig()) for text in (SUPPORTED, *SUPPORTED_SCHEDULING)]
    supported = {field.name for message in accepted for field, _ in message.ListFields()}
    refused = {name.split(".")[0] for name in UNSUPPORTED if "." not in name}
    assert supported | refused == {field.name for field in ModelConfig.DESCRIPTOR.fields}
    assert not supported & refused


@pytest.mark.parametrize("text", [SUPPORTED, *SUPPORTED_SCHEDULING])
def test_supported_fields_are_accepted(text: str) -> None:
    source = parse_text(text, "config.pbtxt", "m")
    assert source.message == text_format.Parse(text, ModelConfig())
    assert source.given
    assert source.batch_size_given == source.message.HasField("dynamic_batching")


def test_unsupported_fields_at_their_default_are_accepted() -> None:
    parse_text('input { name: "x" optional: false } instance_group { passive: false }', "c", "m")


def test_second_repetition_is_told_from_the_first() -> None:
    text = """instance_group [
  { kind: KIND_CPU },
  {
    count: 1
    kind: KIND_GPU
  }
]"""
    with pytest.raises(ConfigError) as error:
        parse_text(text, "c", "m")
    assert (
        error.value.message == "c:5: instance_group[1].kind: KIND_GPU is not supported; expected KIND_CPU or KIND_AUTO"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nmax_batch: 3", 'c:2: Message type "inference.ModelConfig" has no field named "max_batch"'),
        ("max_batch_size: many", "c:1: .*Couldn't parse integer: many"),
        ('name: "other"', "c:1: name: expected 'm' as the directory is called, got 'other'"),
        ("max_batch_size: -1", "c:1: max_batch_size: expected 0 or more, got -1"),
        ("version_policy { latest { num_versions: 0 } }", "c:1: version_policy.latest: num_versions must be 1 or more"),
        ("version_policy { specific { } }", r"c:1: version_policy.specific: expected versions of 1 or more, got \[\]"),
        ("version_policy { specific { versions: [0] } }", r"versions of 1 or more, got \[0\]"),
        ("instance_group { count: -1 }", "instance_group.count: expected 1 or more, got -1"),
        ("instance_group { kind: KIND_MODEL }", "KIND_MODEL is not supported"),
        ("input { dims: [1] }", "c:1: input: has no name"),
        ('output [{ name: "y" },\n{ name: "y" }]', r"c:2: output\[1\]: 'y' is given twice"),
        ('input { name: "x"\ndims: [0] }', r"c:2: input.dims: expected positive sizes, or -1 for any, got \[0\]"),
        ('input { name: "x" dims: [-2] }', r"got \[-2\]"),
    ],
)
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_text(text, "c", "m")


@pytest.mark.parametrize("text", ["max_batch_size: 0", "max_batch_size : 0", "# x\nmax_batch_size:0"])
def test_explicit_zero_batch_size_is_told_from_none(text: str) -> None:
    assert parse_text(text, "c", "m").batch_size_given
    assert not parse_text('input { name: "max_batch_size" } # max_batch_size: 0', "c", "m").batch_size_given


def test_json_takes_both_spellings_of_field_names() -> None:
    snake = parse_json('{"max_batch_size": 3, "dynamic_batching": {"max_queue_delay_microseconds": "5"}}', "m")
    camel = parse_json('{"maxBatchSize": 3, "dynamicBatching": {"maxQueueDelayMicroseconds": 5}}', "m")
    assert snake.message == camel.message
    assert snake.message.dynamic_batching.max_queue_delay_microseconds == 5
    assert snake.batch_size_given
    assert camel.batch_size_given
    assert not parse_json("{}", "m").batch_size_given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", "expected a JSON object, got list"),
        ('{"max_batch": 3}', 'has no field named "max_batch"'),
        ('{"optimization": {"priority": "PRIORITY_MAX"}}', "optimization: is not supported"),
        ('{"name": "other"}', "expected 'm'"),
        ('{"max_batch_size": "x"}', "max_batch_size"),
    ],
)
def test_json_errors_name_the_load_request(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse_json(text, "m")
    assert error.value.message.startswith("config parameter of the load request for model 'm': ")
    assert "\n" not in error.value.message
