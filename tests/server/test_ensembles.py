# SPDX-License-Identifier: Apache-2.0
"""What makes an ensemble one: every tensor made once, before it is taken, and of one type and shape."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import grpc
import pytest
from gristmill.repository.config_source import parse_text
from gristmill.repository.ensembles import Interface, StepModel, StepTensor, complete_ensemble, step_models
from gristmill.repository.errors import RepositoryError
from gristmill.repository.load_order import load_order
from gristmill_protos.model_config_pb2 import DataType, ModelConfig, ModelEnsembling
from hypothesis import given
from hypothesis import strategies as st

FP32, INT64 = DataType.TYPE_FP32, DataType.TYPE_INT64


def interface(
    inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]], max_batch_size: int = 8
) -> Interface:
    return Interface(
        max_batch_size,
        {name: StepTensor(FP32, dims) for name, dims in inputs.items()},
        {name: StepTensor(FP32, dims) for name, dims in outputs.items()},
    )


MODELS: dict[StepModel, Interface | RepositoryError] = {
    ("clean", ""): interface({"raw": (4,)}, {"clean": (4,)}),
    ("score", ""): interface({"x": (-1,)}, {"y": (2,), "extra": ()}),
    ("score", "3"): interface({"x": (4,)}, {"y": (3,)}),
    ("whole", ""): interface({"x": (-1, 4)}, {"y": (2, 2)}, max_batch_size=0),
    ("wide", ""): interface({"x": (5,)}, {"y": (5,)}),
    ("whole_numbers", ""): Interface(8, {"n": StepTensor(INT64, (2,))}, {"m": StepTensor(INT64, (2,))}),
    ("gone", ""): RepositoryError(grpc.StatusCode.UNAVAILABLE, "model 'gone' is not ready: not loaded"),
}
CHAIN = """
platform: "ensemble"
max_batch_size: 8
input { name: "RAW" data_type: TYPE_FP32 dims: 4 }
output { name: "SCORE" data_type: TYPE_FP32 dims: 2 }
ensemble_scheduling {
  step { model_name: "score" input_map { key: "x" value: "mid" } output_map { key: "y" value: "SCORE" } }
  step { model_name: "clean" model_version: -1
         input_map { key: "raw" value: "RAW" } output_map { key: "clean" value: "mid" } }
}
"""


def complete(text: str) -> ModelConfig:
    source = parse_text(text, "m/config.pbtxt", "m")
    return complete_ensemble(
        source, {step: MODELS.get(step, MODELS["gone", ""]) for step in step_models(source.message)}, model="m"
    )


def test_steps_come_out_in_the_order_in_which_they_can_run() -> None:
    config = complete(CHAIN)
    assert [step.model_name for step in config.ensemble_scheduling.step] == ["clean", "score"]
    assert config.platform == "ensemble"
    assert config.version_policy.latest.num_versions == 1


def test_types_and_dims_left_out_are_those_of_the_models() -> None:
    config = complete(CHAIN.replace("data_type: TYPE_FP32 dims: 4", "").replace("data_type: TYPE_FP32 dims: 2", ""))
    assert (config.input[0].data_type, list(config.input[0].dims)) == (FP32, [4])
    assert (config.output[0].data_type, list(config.output[0].dims)) == (FP32, [2])


def test_an_ensemble_without_a_batch_dimension_takes_whole_tensors() -> None:
    text = CHAIN.replace("max_batch_size: 8", "").replace("dims: 4", "dims: [-1, 4]").replace("dims: 2", "dims: [3, 2]")
    assert list(complete(text).input[0].dims) == [-1, 4]
    with pytest.raises(RepositoryError, match=r"input 'RAW' of the ensemble is \[4\], input 'raw' of step 2"):
        complete(CHAIN.replace("max_batch_size: 8", ""))


def test_a_version_that_is_named_is_the_one_that_is_checked() -> None:
    with pytest.raises(RepositoryError, match=r"output 'y' of step 1 \('score'\) is \[3\], output 'SCORE'"):
        complete(CHAIN.replace('"score"', '"score" model_version: 3'))


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced('"ensemble"', '"sim"'), "platform: expected 'ensemble', got 'sim'"),
        (replaced("max_batch_size: 8", 'backend: "sim" max_batch_size: 8'), "backend: an ensemble has none of its own"),
        (replaced("max_batch_size: 8", "instance_group {} "), "instance_group: an ensemble has none"),
        (replaced("max_batch_size: 8", "response_cache { enable: true }"), "response_cache: is not supported for an"),
        (replaced("max_batch_size: 8", "max_batch_size: 9"), r"9 is more than step 1 \('score'\) takes, 8"),
        (replaced('model_name: "score"', 'model_name: ""'), "model_name: names no model"),
        (replaced("model_version: -1", "model_version: -2"), "expected a version, or -1 for the newest, got -2"),
        (replaced('"score"', '"gone"'), r"step 1 \('gone'\): model 'gone' is not ready: not loaded"),
        (replaced('key: "x"', 'key: "z"'), r"step 1 \('score'\) has no input 'z'; it has x"),
        (replaced('key: "y"', 'key: "z"'), r"step 1 \('score'\) has no output 'z'; it has y, extra"),
        (replaced('input_map { key: "x" value: "mid" }', ""), "has an input 'x', not in input_map"),
        (replaced('output_map { key: "clean" value: "mid" }', ""), r"step 2 \('clean'\) has no output_map"),
        (replaced('key: "x" value: "mid"', 'key: "x" value: ""'), "input 'x' is given no tensor"),
        (
            replaced('value: "mid" } output_map { key: "y"', 'value: "mud" } output_map { key: "y"'),
            "takes 'mud', which",
        ),
        (
            replaced('key: "clean" value: "mid"', 'key: "clean" value: "SCORE"'),
            "makes 'SCORE', which is made by step 1",
        ),
        (replaced('key: "clean" value: "mid"', 'key: "clean" value: "RAW"'), "makes 'RAW', which is an input of the"),
        (replaced('key: "raw" value: "RAW"', 'key: "raw" value: "SCORE"'), "no step takes 'RAW'"),
        (replaced('name: "SCORE"', 'name: "OTHER"'), r"output: no step makes 'OTHER'"),
        (
            replaced('"score"', '"wide"'),
            r"tensor 'mid': output 'clean' of step 2 \('clean'\) is \[4\], input 'x' of st",
        ),
        (
            replaced("TYPE_FP32 dims: 4", "TYPE_INT64 dims: 4"),
            "tensor 'RAW': input 'RAW' of the ensemble is TYPE_INT64",
        ),
        (replaced("TYPE_FP32 dims: 2", "TYPE_FP32 dims: 7"), r"output 'y' of step 1 \('score'\) is \[2\], output 'SCO"),
        (replaced("input { name", "output { name"), "an ensemble needs at least one input"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[str], str], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        complete(change(CHAIN))


def test_steps_that_wait_for_each_other_are_named() -> None:
    text = CHAIN.replace(
        "ensemble_scheduling {",
        """ensemble_scheduling {
  step { model_name: "score" input_map { key: "x" value: "b" } output_map { key: "y" value: "a" } }
  step { model_name: "score" input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } }""",
    )
    with pytest.raises(RepositoryError, match=r"in a circle: step [12] \('score'\) -> step [12] \('score'\) -> step"):
        complete(text)


# ---- any ensemble ----


@st.composite
def ensembles(draw: st.DrawFn) -> ModelConfig:
    """Steps of 'score' that take any tensor made before them; whatever nobody takes is an output."""
    config = ModelConfig(platform="ensemble", max_batch_size=8)
    config.input.add(name="t0")
    made = ["t0"]
    taken = set()
    for index in range(draw(st.integers(1, 8))):
        source = made[0] if index == 0 else draw(st.sampled_from(made))
        taken.add(source)
        made.append(f"t{index + 1}")
        config.ensemble_scheduling.step.add(model_name="score", input_map={"x": source}, output_map={"y": made[-1]})
    for name in made:
        if name not in taken:
            config.output.add(name=name)
    steps = list(config.ensemble_scheduling.step)
    draw(st.randoms(use_true_random=False)).shuffle(steps)
    config.ensemble_scheduling.CopyFrom(ModelEnsembling(step=steps))
    return config


def complete_message(config: ModelConfig) -> ModelConfig:
    return complete(str(config))


@given(ensembles())
def test_any_ensemble_without_a_fault_is_put_in_order(config: ModelConfig) -> None:
    there = {"t0"}
    completed = complete_message(config)
    for step in completed.ensemble_scheduling.step:
        assert set(step.input_map.values()) <= there
        there |= set(step.output_map.values())
    assert {tensor.name for tensor in completed.output} <= there
    assert len(completed.ensemble_scheduling.step) == len(config.ensemble_scheduling.step)


@given(ensembles(), st.integers(0, 3), st.integers())
def test_any_ensemble_with_one_fault_is_refused(config: ModelConfig, fault: int, seed: int) -> None:
    step = random.Random(seed).choice(config.ensemble_scheduling.step)
    if fault == 0:
        step.input_map["x"] = "nobody_makes_this"
    elif fault == 1:
        step.output_map["y"] = "t0"
    elif fault == 2:
        step.input_map["x"] = step.output_map["y"]
    else:
        step.model_name = "whole"
    with pytest.raises(RepositoryError):
        complete_message(config)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefgh"), max_size=3)))
def test_load_order_puts_each_model_after_what_it_needs_unless_it_needs_itself(needs: dict[str, list[str]]) -> None:
    order, circles = load_order(needs)
    assert sorted(order) == sorted(needs)
    for name in set(needs) - circles.keys():
        for needed in set(needs[name]) & needs.keys():
            assert order.index(needed) < order.index(name)
    for name, circle in circles.items():
        names = circle.split(" -> ")
        assert name in names
        assert names[0] == names[-1]
        assert all(other in needs[one] for one, other in itertools.pairwise(names))
