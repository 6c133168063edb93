# SPDX-License-Identifier: Apache-2.0
"""Models of sequences: state that the server keeps between the requests of a caller."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from .harness import RunningServer, inputs_of, serve

CONFIG = """
max_batch_size: 8
instance_group { count: 2 }
sequence_batching {
  %s
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] } }
  control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: %s } }
  state { input_name: "TOTAL_IN" output_name: "TOTAL_OUT" %s }
}
"""
CONFIGS = {
    "total": ("oldest { max_candidate_sequences: 4 }", "TYPE_INT64", ""),
    "direct": ("", "TYPE_INT64", ""),
    "named": ("oldest { }", "TYPE_STRING", ""),
    "brief": ("max_sequence_idle_microseconds: 50000", "TYPE_INT64", ""),
    "from_file": ("oldest { }", "TYPE_INT64", 'initial_state { name: "hundred" data_file: "hundred" }'),
}


def running_total(id_type: int) -> bytes:
    """Y = TOTAL_OUT = TOTAL_IN + X; STARTED and ID_OUT tell what the model was told."""

    def tensor(name: str, dtype: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, ["N", 1])

    inputs = [tensor(name, TensorProto.FLOAT) for name in ("X", "START", "TOTAL_IN")] + [tensor("ID", id_type)]
    outputs = [tensor(name, TensorProto.FLOAT) for name in ("Y", "STARTED", "TOTAL_OUT")] + [tensor("ID_OUT", id_type)]
    nodes = [
        helper.make_node("Add", ["TOTAL_IN", "X"], ["TOTAL_OUT"]),
        helper.make_node("Identity", ["TOTAL_OUT"], ["Y"]),
        helper.make_node("Identity", ["START"], ["STARTED"]),
        helper.make_node("Identity", ["ID"], ["ID_OUT"]),
    ]
    graph = helper.make_graph(nodes, "running_total", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def publish(repository: Path, name: str) -> None:
    strategy, id_type, state = CONFIGS[name]
    (repository / name / "1").mkdir(parents=True)
    dtype = TensorProto.STRING if id_type == "TYPE_STRING" else TensorProto.INT64
    (repository / name / "1" / "model.onnx").write_bytes(running_total(dtype))
    (repository / name / "config.pbtxt").write_text(CONFIG % (strategy, id_type, state))
    (repository / name / "initial_state").mkdir()
    (repository / name / "initial_state" / "hundred").write_bytes(np.float32([100]).tobytes())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("sequences")
    for model in CONFIGS:
        publish(repository, model)
    with serve(repository, frontend=frontend) as running:
        yield running


def send(
    client: triton.InferenceServerClient, model: str, sequence: int | str, x: float, *, start: bool, end: bool
) -> triton.InferResult:
    inputs = inputs_of({"X": np.array([[x]], np.float32)})
    return client.infer(model, inputs, sequence_id=sequence, sequence_start=start, sequence_end=end)


def totals(client: triton.InferenceServerClient, model: str, sequence: int | str, values: list[float]) -> list[float]:
    """What a whole sequence is answered with."""
    last = len(values) - 1
    answers = [send(client, model, sequence, x, start=i == 0, end=i == last) for i, x in enumerate(values)]
    assert [answer.as_numpy("STARTED").item() for answer in answers] == [1] + [0] * last
    expected = str(sequence).encode() if model == "named" else sequence
    assert {answer.as_numpy("ID_OUT").item() for answer in answers} == {expected}
    return [answer.as_numpy("Y").item() for answer in answers]


@pytest.mark.parametrize("model", ["total", "direct", "named"])
def test_a_sequence_goes_on_where_it_stopped(server: RunningServer, model: str) -> None:
    with server.client() as client:
        assert totals(client, model, 7, [1, 2, 3]) == [1, 3, 6]
        assert totals(client, model, 7, [5, 5]) == [5, 10]


def test_a_sequence_may_be_named_by_a_text(server: RunningServer) -> None:
    with server.client() as client:
        assert totals(client, "named", "call-0815", [1, 2]) == [1, 3]
        with pytest.raises(InferenceServerException, match="INT64, not the text 'call-0815'"):
            send(client, "total", "call-0815", 1, start=True, end=True)


def test_an_initial_state_is_read_from_its_file(server: RunningServer) -> None:
    with server.client() as client:
        assert totals(client, "from_file", 1, [1, 2]) == [101, 103]


def test_callers_see_neither_controls_nor_states(server: RunningServer) -> None:
    with server.client() as client:
        metadata = client.get_model_metadata("total", as_json=True)
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["X"]
        assert [tensor["name"] for tensor in metadata["outputs"]] == ["Y", "STARTED", "ID_OUT"]
        config = client.get_model_config("total", as_json=True)["config"]
        assert config["sequence_batching"]["state"][0]["dims"] == ["1"]
        inputs = inputs_of({"X": np.ones((1, 1), np.float32), "START": np.ones((1, 1), np.float32)})
        with pytest.raises(InferenceServerException, match="no input 'START'"):
            client.infer("total", inputs, sequence_id=1, sequence_start=True)


def test_what_belongs_to_no_sequence_is_refused(server: RunningServer) -> None:
    with server.client() as client:
        with pytest.raises(InferenceServerException, match="must say sequence_start") as unknown:
            send(client, "total", 404, 1, start=False, end=False)
        assert unknown.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="expected a sequence_id"):
            client.infer("total", inputs_of({"X": np.ones((1, 1), np.float32)}))
        with pytest.raises(InferenceServerException, match="one row per request"):
            client.infer("total", inputs_of({"X": np.ones((2, 1), np.float32)}), sequence_id=1, sequence_start=True)


def test_a_sequence_that_is_left_alone_is_over(server: RunningServer) -> None:
    def go_on(client: triton.InferenceServerClient) -> None:
        for doublings in itertools.count():  # each request keeps it alive, so the pauses between them grow
            time.sleep(0.01 * 2**doublings)
            send(client, "brief", 3, 1, start=False, end=False)

    with server.client() as client:
        send(client, "brief", 3, 1, start=True, end=False)
        with pytest.raises(InferenceServerException, match="or it is over"):
            go_on(client)


def test_many_callers_at_the_same_time_have_totals_of_their_own(server: RunningServer) -> None:
    """More sequences than there are slots: those beyond them wait until others are over."""

    def caller(number: int) -> None:
        with server.client() as client:
            for turn in range(5):
                values = [float(number), *range(turn + 2)]
                expected = np.cumsum(values).tolist()
                assert totals(client, "total", 1000 * number + turn + 1, values) == expected

    with ThreadPoolExecutor(20) as pool:
        for outcome in [pool.submit(caller, number) for number in range(20)]:
            outcome.result()
    with server.client() as client:
        statistics = client.get_inference_statistics("total", as_json=True)["model_stats"][0]
        assert int(statistics["inference_stats"]["success"]["count"]) >= 20 * sum(turn + 3 for turn in range(5))
