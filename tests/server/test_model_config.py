# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

import pytest
from google.protobuf import text_format
from gristmill.repository.config_source import ConfigSource, parse_text
from gristmill.repository.errors import ConfigError
from gristmill.repository.model_config import ModelFile, choose_model_file, complete_config
from gristmill_protos.model_config_pb2 import ModelConfig

from .fakes import FakeTensor

FILE = ModelFile("sim", "model.sim", {})


@dataclass
class Signature:
    inputs: list[FakeTensor]
    outputs: list[FakeTensor]


BATCHABLE = Signature([FakeTensor("x", "FP32", [-1, 3, -1])], [FakeTensor("y", "INT64", [-1])])
FIXED = Signature([FakeTensor("x", "FP32", [2, 3])], [FakeTensor("y", "BYTES", [2])])


def complete(text: str | None, signature: Signature, default_max_batch_size: int = 64) -> ModelConfig:
    source = ConfigSource.absent("m") if text is None else parse_text(text, "c", "m")
    return complete_config(source, signature, FILE, model="m", default_max_batch_size=default_max_batch_size)


def test_batchable_model_without_configuration_is_batched_dynamically() -> None:
    expected = """
        name: "m" platform: "sim" backend: "sim" version_policy { latest { num_versions: 1 } } max_batch_size: 64
        input { name: "x" data_type: TYPE_FP32 dims: [3, -1] }
        output { name: "y" data_type: TYPE_INT64 }
        instance_group { name: "m_0" count: 1 kind: KIND_CPU }
        default_model_filename: "model.sim" dynamic_batching {}"""
    assert complete(None, BATCHABLE) == text_format.Parse(expected, ModelConfig())


def test_model_with_fixed_dimensions_is_not_batched() -> None:
    config = complete(None, FIXED)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [2, 3]
    assert list(config.output[0].dims) == [2]


@pytest.mark.parametrize(
    "signature",
    [
        Signature(BATCHABLE.inputs, FIXED.outputs),
        Signature(FIXED.inputs, BATCHABLE.outputs),
        Signature([FakeTensor("x", "FP32", [])], BATCHABLE.outputs),
    ],
)
def test_one_tensor_without_a_dynamic_first_dimension_prevents_batching(signature: Signature) -> None:
    assert complete(None, signature).max_batch_size == 0


def test_default_max_batch_size_zero_turns_derived_batching_off() -> None:
    config = complete(None, BATCHABLE, default_max_batch_size=0)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [-1, 3, -1]


def test_given_configuration_without_dynamic_batching_combines_nothing() -> None:
    config = complete("", BATCHABLE)
    assert config.max_batch_size == 64
    assert not config.HasField("dynamic_batching")


def test_partial_configuration_is_completed() -> None:
    config = complete(
        'max_batch_size: 8 input { name: "x" } dynamic_batching {} instance_group { count: 3 }', BATCHABLE
    )
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [3, -1]
    assert [output.name for output in config.output] == ["y"]
    assert config.HasField("dynamic_batching")
    assert [(group.name, group.count) for group in config.instance_group] == [("m_0", 3)]


def test_explicit_max_batch_size_zero_is_kept() -> None:
    config = complete("max_batch_size: 0", BATCHABLE)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 3, -1]


def test_dims_with_the_batch_dimension_mean_no_batching() -> None:
    assert complete('input { name: "x" dims: [-1, 3, 5] }', BATCHABLE).max_batch_size == 0
    assert complete('input { name: "x" dims: [3, 5] }', BATCHABLE).max_batch_size == 64


def test_missing_inputs_are_added_and_chosen_outputs_kept() -> None:
    signature = Signature(
        [FakeTensor("a", "FP32", [-1, 1]), FakeTensor("b", "BOOL", [-1])],
        [FakeTensor("p", "FP32", [-1]), FakeTensor("q", "FP32", [-1])],
    )
    config = complete('input { name: "b" } output { name: "q" }', signature)
    assert [tensor.name for tensor in config.input] == ["b", "a"]
    assert [tensor.name for tensor in config.output] == ["q"]


def test_configuration_may_narrow_inputs_and_widen_outputs() -> None:
    signature = Signature([FakeTensor("x", "FP32", [-1, -1])], [FakeTensor("y", "FP32", [-1, 4])])
    config = complete('max_batch_size: 2 input { name: "x" dims: [7] } output { name: "y" dims: [-1] }', signature)
    assert list(config.input[0].dims) == [7]
    assert list(config.output[0].dims) == [-1]


def test_outputs_that_declare_one_row_or_no_rank_can_be_batched_when_told() -> None:
    signature = Signature(BATCHABLE.inputs, [FakeTensor("label", "INT64", [1]), FakeTensor("scores", "FP32", [])])
    config = complete('max_batch_size: 4 output { name: "label" } output { name: "scores" dims: [2] }', signature)
    assert [list(tensor.dims) for tensor in config.output] == [[], [2]]


def test_batch_of_one_fits_a_fixed_first_dimension_of_one() -> None:
    signature = Signature([FakeTensor("x", "FP32", [1, 3])], [FakeTensor("y", "FP32", [1])])
    assert list(complete("max_batch_size: 1", signature).input[0].dims) == [3]


@pytest.mark.parametrize(
    ("text", "signature", "message"),
    [
        ('\ninput { name: "z" }', BATCHABLE, "c:2: input: the model file has no input 'z'; it has x"),
        ('output { name: "z" }', BATCHABLE, "c:1: output: the model file has no output 'z'; it has y"),
        (
            'input { name: "x"\ndata_type: TYPE_INT8 }',
            BATCHABLE,
            "c:2: input.data_type: 'x' is TYPE_FP32 in the model file, not TYPE_INT8",
        ),
        (
            'max_batch_size: 2\ninput { name: "x"\ndims: [4, -1] }',
            BATCHABLE,
            r"c:3: input.dims: 'x' is \[3, -1\] without the batch dimension in the model file, the configuration says "
            r"\[4, -1\]",
        ),
        ('max_batch_size: 2 input { name: "x" dims: [-1, 5] }', BATCHABLE, r"the configuration says \[-1, 5\]"),
        ('input { name: "x" dims: [2] }', FIXED, r"'x' is \[2, 3\] in the model file, the configuration says \[2\]"),
        ("max_batch_size: 8", FIXED, r"c:1: max_batch_size: the model cannot be batched: input 'x' is \[2, 3\]"),
        ("dynamic_batching {}", FIXED, "c:1: dynamic_batching: needs a max_batch_size of 1 or more"),
        (
            "max_batch_size: 4\ndynamic_batching {\npreferred_batch_size: [2, 8] }",
            BATCHABLE,
            r"c:3: dynamic_batching.preferred_batch_size: expected sizes from 1 to max_batch_size \(4\), got 8",
        ),
        (
            "max_batch_size: 4 dynamic_batching {\ndefault_priority_level: 1 }",
            BATCHABLE,
            "c:2: dynamic_batching.default_priority_level: needs priority_levels",
        ),
        (
            "max_batch_size: 4 dynamic_batching {\npriority_levels: 2 }",
            BATCHABLE,
            r"c:1: dynamic_batching.default_priority_level: expected 1 to priority_levels \(2\), got 0",
        ),
        (
            "max_batch_size: 4 dynamic_batching {\npriority_levels: 5000 default_priority_level: 1 }",
            BATCHABLE,
            "c:2: dynamic_batching.priority_levels: expected at most 1000, got 5000",
        ),
        (
            "max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 2\n"
            "priority_queue_policy { key: 3 value {} } }",
            BATCHABLE,
            r"c:2: dynamic_batching.priority_queue_policy: expected keys from 1 to priority_levels \(2\), got 3",
        ),
        (
            "max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 2\n"
            "preserve_ordering: true }",
            BATCHABLE,
            "c:2: dynamic_batching.preserve_ordering: allows one priority level only",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preserve_ordering: true\n"
            "default_queue_policy { timeout_action: DELAY } }",
            BATCHABLE,
            "c:1: dynamic_batching.preserve_ordering: does not go with timeout_action DELAY",
        ),
        ("", Signature([FakeTensor("x", "COMPLEX64", [-1])], BATCHABLE.outputs), "datatype COMPLEX64"),
    ],
)
def test_contradictions_say_expected_and_actual(text: str, signature: Signature, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete(text, signature)


@pytest.mark.parametrize(
    ("text", "files", "backend", "file"),
    [
        ("", ["model.onnx"], "onnxruntime", "model.onnx"),
        ("", ["model.sim", "model.onnx"], "onnxruntime", "model.onnx"),
        ("", ["model.sim", "notes.txt"], "sim", "model.sim"),
        ('backend: "sim"', ["model.sim", "model.onnx"], "sim", "model.sim"),
        ('platform: "onnxruntime_onnx"', ["model.sim", "model.onnx"], "onnxruntime", "model.onnx"),
        ('default_model_filename: "b.onnx"', ["b.onnx", "model.onnx"], "onnxruntime", "b.onnx"),
        ('default_model_filename: "b" backend: "sim"', ["b"], "sim", "b"),
    ],
)
def test_choice_of_backend_and_file(text: str, files: list[str], backend: str, file: str) -> None:
    chosen = choose_model_file(parse_text(text, "c", "m"), files)
    assert (chosen.backend, chosen.file_name) == (backend, file)


def test_parameters_go_to_the_backend() -> None:
    source = parse_text('parameters { key: "k" value { string_value: "v" } }', "c", "m")
    assert choose_model_file(source, ["model.sim"]).parameters == {"k": "v"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no model file: expected model.onnx or model.py or model.sim, the version has model.pt"),
        ('backend: "sim"', "no model file: expected model.sim, the version has model.pt"),
        ('backend: "tensorrt"', "c:1: backend: expected one of onnxruntime, python, sim, got 'tensorrt'"),
        ('platform: "pytorch"', "c:1: platform: expected one of onnxruntime_onnx, python, sim, got 'pytorch'"),
        ('platform: "sim" backend: "onnxruntime"', "'sim' contradicts backend 'onnxruntime'"),
        ('default_model_filename: "model.pt"', "expected a name that ends in .onnx or .py or .sim"),
        ('default_model_filename: "../model.onnx"', "must name a file inside the version"),
    ],
)
def test_unusable_choice_of_backend_or_file(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_model_file(parse_text(text, "c", "m"), ["model.pt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('%s parameters { key: "response_cache_ttl_ms" value { string_value: "soon" } }', "expected milliseconds"),
        ('%s parameters { key: "response_cache_ttl_ms" value { string_value: "0" } }', "expected milliseconds"),
        (
            '%s parameters { key: "response_cache_inputs" value { string_value: "x, z" } }',
            "the model has no input 'z'; it has x",
        ),
        ("%s max_batch_size: 8 sequence_batching {}", "the answers of a model of sequences depend"),
    ],
)
def test_response_cache_s_options_must_make_sense(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete(text % "response_cache { enable: true }", BATCHABLE)


def test_response_cache_s_options_need_the_cache_and_do_not_reach_the_backend() -> None:
    ttl = 'parameters { key: "response_cache_ttl_ms" value { string_value: "5" } }'
    with pytest.raises(ConfigError, match="needs response_cache"):
        complete(ttl, BATCHABLE)
    source = parse_text(f"response_cache {{ enable: true }} {ttl}", "c", "m")
    assert choose_model_file(source, ["model.sim"]).parameters == {}
