# SPDX-License-Identifier: Apache-2.0
"""`sequence_batching` in a configuration, against what the model file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gristmill.repository.config_source import parse_text
from gristmill.repository.errors import ConfigError
from gristmill.repository.model_config import ModelFile, complete_config
from gristmill.repository.sequences import core_sequences
from gristmill_protos.model_config_pb2 import DataType, ModelConfig

from .fakes import FakeTensor

FILE = ModelFile("sim", "model.sim", {})


@dataclass
class Signature:
    inputs: list[FakeTensor]
    outputs: list[FakeTensor]


STATEFUL = Signature(
    [
        FakeTensor("x", "FP32", [-1, 4]),
        FakeTensor("start", "INT32", [-1, 1]),
        FakeTensor("id", "UINT64", [-1, 1]),
        FakeTensor("past", "FP32", [-1, -1, 2]),
    ],
    [FakeTensor("y", "FP32", [-1, 4]), FakeTensor("present", "FP32", [-1, -1, 2]), FakeTensor("n", "INT64", [-1, 1])],
)
START = 'control_input { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }'
ID = 'control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }'
STATE = 'state { input_name: "past" output_name: "present" initial_state { name: "i" dims: [3, 2] %s } }'


def complete(sequence_batching: str, rest: str = "max_batch_size: 8") -> ModelConfig:
    source = parse_text(f"{rest} sequence_batching {{ {sequence_batching} }}", "c", "m")
    return complete_config(source, STATEFUL, FILE, model="m", default_max_batch_size=64)


def test_what_is_left_out_is_filled_in_and_the_model_s_own_tensors_are_hidden() -> None:
    config = complete(START + ID + STATE % "zero_data: true")
    assert [tensor.name for tensor in config.input] == ["x"]
    assert [tensor.name for tensor in config.output] == ["y", "n"]
    batching = config.sequence_batching
    assert batching.max_sequence_idle_microseconds == 1_000_000
    assert batching.WhichOneof("strategy_choice") == "direct"
    assert batching.control_input[0].control[0].data_type == DataType.TYPE_INT32
    assert batching.state[0].data_type == DataType.TYPE_FP32
    assert list(batching.state[0].dims) == [-1, 2]


def test_a_state_s_output_may_be_shown_as_well() -> None:
    shown = 'max_batch_size: 8 output [ { name: "y" }, { name: "present" } ]'
    config = complete(START + ID + STATE % "zero_data: true", shown)
    assert [tensor.name for tensor in config.output] == ["y", "present"]


def test_an_input_that_is_neither_control_nor_state_is_the_caller_s() -> None:
    assert [tensor.name for tensor in complete(START + ID).input] == ["x", "past"]


@pytest.mark.parametrize(
    ("sequence_batching", "message"),
    [
        (
            START.replace('"start"', '"begin"'),
            r"c:1: sequence_batching.control_input: the model file has no input 'begin'",
        ),
        (START.replace("int32_", "fp32_"), r"'start' is TYPE_INT32, not TYPE_FP32"),
        (START.replace("[0, 1]", "[1]"), r"expected two values for no and yes"),
        (START.replace("int32_false_true: [0, 1]", ""), r"expected two values for no and yes"),
        (START + START, r"input 'start' is given twice"),
        (
            START.replace('"start"', '"x"'),
            r"expected one element, dims \[1\] without the batch dimension, but 'x' has \[4\]",
        ),
        (ID.replace("TYPE_UINT64", "TYPE_STRING"), r"'id' is TYPE_UINT64, not TYPE_STRING"),
        ('state { input_name: "old" output_name: "present" }', r"no input 'old'"),
        ('state { input_name: "past" output_name: "new" }', r"no output 'new'"),
        ('state { input_name: "past" output_name: "n" }', r"'past' is FP32, but 'n' is INT64"),
        ('state { input_name: "past" output_name: "present" }', r"give those of initial_state, none of them -1"),
        (
            STATE.replace("[3, 2]", "[3, 5]") % "zero_data: true",
            r"initial_state has dims \[3, 5\], the state \[-1, 2\]",
        ),
        (STATE % 'data_file: "../secret"', r"must name a file inside initial_state/"),
        ("oldest { max_candidate_sequences: -1 }", r"must not be negative"),
    ],
)
def test_what_contradicts_the_model_file_is_refused(sequence_batching: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete(sequence_batching)


def test_an_initial_state_s_file_must_have_its_size(tmp_path: Path) -> None:
    config = complete(START + ID + STATE % 'data_file: "past"')
    (tmp_path / "initial_state").mkdir()
    file = tmp_path / "initial_state" / "past"
    file.write_bytes(np.zeros(6, np.float32).tobytes())
    assert core_sequences(config, tmp_path) is not None
    file.write_bytes(bytes(5))
    with pytest.raises(ConfigError, match=r"expected 24 bytes for FP32\[3, 2\], got 5"):
        core_sequences(config, tmp_path)


def test_a_model_without_sequences_has_none(tmp_path: Path) -> None:
    assert core_sequences(ModelConfig(), tmp_path) is None
