# SPDX-License-Identifier: Apache-2.0
"""Models that are Python classes: what they get, what they give, and what happens when they break."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .harness import RunningServer, in_threads, inputs_of, serve, state_of, wait_until, write_sim
from .python_models import config, write_python

GUIDE = Path(__file__).parents[2] / "docs" / "python_models.md"

ECHO = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            tensors = [pb_utils.Tensor(t.name().replace("IN_", "OUT_", 1), t.as_numpy()) for t in request.inputs()]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
"""

# Its answer: the sum of each row, how many requests came together, and the process that has answered.
SUM = """
class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        output = pb_utils.get_output_config_by_name(config, "TOTAL")
        self.dtype = pb_utils.triton_string_to_numpy(output["data_type"])
        assert isinstance(output["dims"][0], int), output
        assert args["model_name"] == "sum" and args["model_version"] == "1", args
        self.marker = open(os.path.join(args["model_repository"], "finalized"), "w")

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if (x == 666).any():
                error = pb_utils.TritonError("666 is refused", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            if (x == 13).any():
                raise ValueError("13 is too much")
            if (x == 99).any():
                os._exit(7)
            total = x.sum(axis=1, keepdims=True).astype(self.dtype)
            company = np.full((len(x), 1), len(requests), np.int32)
            process = np.full((len(x), 1), os.getpid(), np.int64)
            tensors = [("TOTAL", total), ("COMPANY", company), ("PROCESS", process)]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(*tensor) for tensor in tensors]))
        time.sleep(0.02)
        return responses

    def finalize(self):
        self.marker.write("yes")
        self.marker.close()
"""
SUM_CONFIG = config("X INT64 4", "TOTAL FP64 1; COMPANY INT32 1; PROCESS INT64 1", "dynamic_batching {}", 64)

TYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Path:
    repository = tmp_path_factory.mktemp("python")
    tensors = [f"{{}}_{name} {name} -1 2" for name in TYPES] + ["{}_BYTES STRING -1"]
    inputs = "; ".join(tensor.format("IN") for tensor in tensors)
    write_python(repository, "echo", ECHO, config(inputs, inputs.replace("IN_", "OUT_"), max_batch_size=0))
    write_python(repository, "sum", SUM, SUM_CONFIG)
    return repository


@pytest.fixture(scope="module")
def server(repository: Path, frontend: str) -> Iterator[RunningServer]:
    with serve(repository, "--model-control-mode", "explicit", "--load-model", "*", frontend=frontend) as running:
        yield running


def rows(*values: int) -> dict[str, np.ndarray]:
    return {"X": np.array([[value] * 4 for value in values], np.int64)}


def totals(client: triton.InferenceServerClient, *values: int) -> list[float]:
    return list(client.infer("sum", inputs_of(rows(*values))).as_numpy("TOTAL").ravel())


def process_of(client: triton.InferenceServerClient) -> int:
    return int(client.infer("sum", inputs_of(rows(1))).as_numpy("PROCESS")[0, 0])


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_tensors_of_every_type_go_there_and_back(client: triton.InferenceServerClient) -> None:
    random = np.random.default_rng(5)
    inputs: dict[str, np.ndarray] = {}
    for name in TYPES:
        dtype = np.dtype(triton_dtype(name))
        inputs[f"IN_{name}"] = random.integers(0, 2 if name == "BOOL" else 100, (3, 2)).astype(dtype)
    inputs["IN_BYTES"] = np.array([b"", "grüß".encode(), b"\x00\xff" * 3000], dtype=np.object_)
    answer = client.infer("echo", inputs_of(inputs))
    for name, array in inputs.items():
        actual = answer.as_numpy(name.replace("IN_", "OUT_", 1))
        assert actual.dtype == array.dtype
        np.testing.assert_array_equal(actual, array)
    wanted = [triton.InferRequestedOutput("OUT_FP32")]
    assert len(client.infer("echo", inputs_of(inputs), outputs=wanted).get_response().outputs) == 1


def triton_dtype(name: str) -> str:
    return {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}.get(name, name.lower())


def test_tensors_without_elements_and_large_ones(client: triton.InferenceServerClient) -> None:
    def call(count: int) -> None:
        names = {f"IN_{name}": np.ones((count, 2), triton_dtype(name)) for name in TYPES}
        names["IN_BYTES"] = np.array([b"x"] * count, dtype=np.object_)
        answer = client.infer("echo", inputs_of(names))
        assert answer.as_numpy("OUT_FP64").shape == (count, 2)

    for count in (1_000_000, 0, 3):
        call(count)


def test_requests_of_many_callers_come_together_and_each_gets_its_own(server: RunningServer) -> None:
    company: list[int] = []

    def call(number: int) -> None:
        with server.client() as client:
            for turn in range(200, 220):
                answer = client.infer("sum", inputs_of(rows(number, turn)))
                assert list(answer.as_numpy("TOTAL").ravel()) == [4.0 * number, 4.0 * turn]
                company.append(int(answer.as_numpy("COMPANY")[0, 0]))

    in_threads(12, lambda number: call(number + 20))
    assert max(company) > 1


def test_a_request_that_fails_fails_alone(server: RunningServer) -> None:
    messages = {666: "666 is refused", 13: "model 'sum' failed: ValueError: 13 is too much"}

    def call(number: int) -> None:
        with server.client() as client:
            for _ in range(5):
                bad = (666, 13)[number % 2] if number < 4 else None
                if bad is None:
                    assert totals(client, number) == [4.0 * number]
                    continue
                with pytest.raises(InferenceServerException, match=re.escape(messages[bad])) as error:
                    totals(client, bad)
                code = "INVALID_ARGUMENT" if bad == 666 else "INTERNAL"
                assert code in str(error.value.status())

    in_threads(12, call)


def test_a_request_that_ends_the_worker_ends_nobody_else(server: RunningServer) -> None:
    def call(number: int) -> None:
        with server.client() as client:
            if number == 0:
                with pytest.raises(InferenceServerException, match="ended with status 7; a new one takes over"):
                    totals(client, 99)
            else:
                for turn in range(10):
                    assert totals(client, 100 + turn) == [400.0 + 4 * turn]

    in_threads(8, call)


def test_a_worker_that_is_killed_is_replaced(client: triton.InferenceServerClient) -> None:
    before = process_of(client)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not is_alive(before), "the worker's end")
    assert totals(client, 1, 2) == [4.0, 8.0]
    assert process_of(client) != before


def test_unloading_finalizes_the_model_and_leaves_nothing(
    client: triton.InferenceServerClient, server: RunningServer, repository: Path
) -> None:
    worker = process_of(client)
    descriptors, shared = descriptors_of(server), memory_of(server)
    client.unload_model("sum")
    assert not is_alive(worker)
    assert (repository / "sum" / "finalized").read_text() == "yes"
    assert descriptors_of(server) < descriptors
    assert memory_of(server) == shared - 2
    client.load_model("sum")
    assert memory_of(server) == shared


def descriptors_of(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def memory_of(server: RunningServer) -> int:
    return sum("memfd:gristmill" in line for line in Path(f"/proc/{server.process.pid}/maps").read_text().splitlines())


def test_a_server_that_is_killed_takes_its_workers_along(repository: Path, frontend: str) -> None:
    with serve(repository, frontend=frontend) as running:
        with running.client() as client:
            worker = process_of(client)
        running.process.kill()
        running.wait()
        wait_until(lambda: not is_alive(worker), "the worker's end")


BROKEN = {
    "syntax": ("class TritonPythonModel(:", "SyntaxError"),
    "no_class": ("x = 1", "model.py has no class TritonPythonModel"),
    "no_execute": ("class TritonPythonModel: pass", "has no method execute"),
    "raises": (
        "class TritonPythonModel:\n"
        "    def initialize(self, args):\n        raise RuntimeError('no weights')\n"
        "    def execute(self, requests): pass",
        "RuntimeError: no weights",
    ),
    "exits": ("os._exit(3)", "ended with status 3"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_cannot_be_loaded_says_why(
    client: triton.InferenceServerClient, repository: Path, kind: str
) -> None:
    body, message = BROKEN[kind]
    name = f"broken_{kind}"
    write_python(repository, name, body, config("X INT64 4", "Y INT64 4"))
    with pytest.raises(InferenceServerException, match=re.escape(message)):
        client.load_model(name)
    assert message in state_of(client, name)["1"][1]


def test_what_is_missing_in_the_configuration_is_named(client: triton.InferenceServerClient, repository: Path) -> None:
    write_python(repository, "bare", ECHO, 'backend: "python"')
    with pytest.raises(InferenceServerException, match=r"has no input unless config\.pbtxt or auto_complete_config"):
        client.load_model("bare")


WRONG = """
class TritonPythonModel:
    def execute(self, requests):
        x = requests[0].inputs()[0].as_numpy()
        kind = int(x[0, 0])
        if kind == 0:
            return []
        if kind == 1:
            return [None]
        if kind == 2:
            return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x.astype(np.float32))])]
        if kind == 3:
            return [pb_utils.InferenceResponse([pb_utils.Tensor("Z", x)])]
        if kind == 4:
            return [pb_utils.InferenceResponse([])]
        if kind == 5:
            return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([object()]))])]
        if kind == 6:
            time.sleep(1000)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])]
"""


def test_wrong_answers_are_the_models_errors_and_a_hang_has_a_limit(
    client: triton.InferenceServerClient, repository: Path
) -> None:
    limit = 'parameters { key: "EXECUTION_TIMEOUT_SECS" value { string_value: "1" } }'
    write_python(repository, "wrong", WRONG, config("X INT64 1", "Y INT64 1", limit))
    client.load_model("wrong")
    messages = [
        "was given 1 requests and returned 0, not as many responses",
        "returned a NoneType, not an InferenceResponse",
        "output 'Y' of model 'wrong' is FP32, its configuration says INT64",
        "an output 'Z' is not in the configuration; it has ['Y']",
        "model 'wrong' has given no output 'Y'",
        "expected bytes or text in an array of objects, got object",
        "took longer than its limit and was ended; a new one takes over",
    ]
    for kind, message in enumerate(messages):
        with pytest.raises(InferenceServerException, match=re.escape(message)):
            client.infer("wrong", inputs_of({"X": np.array([[kind]], np.int64)}))
    assert client.infer("wrong", inputs_of({"X": np.array([[7]], np.int64)})).as_numpy("Y")[0, 0] == 7


COMPLETES = """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        known = config.as_dict()
        assert known["max_batch_size"] == 0, known
        config.add_input({"name": "X", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        return config

    async def execute(self, requests):
        await asyncio.sleep(0)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", -pb_utils.get_input_tensor_by_name(r, "X").as_numpy())])
            for r in requests
        ]
"""


def test_a_model_may_complete_its_configuration(client: triton.InferenceServerClient, repository: Path) -> None:
    write_python(repository, "completes", COMPLETES)
    client.load_model("completes")
    completed = client.get_model_config("completes").config
    assert completed.max_batch_size == 4
    assert completed.backend == "python"
    x = np.array([[1.5, 2]], np.float32)
    np.testing.assert_array_equal(client.infer("completes", inputs_of({"X": x})).as_numpy("Y"), -x)
    write_python(repository, "fails", COMPLETES.replace("== 0", "== 5"))
    with pytest.raises(InferenceServerException, match="AssertionError"):
        client.load_model("fails")


CALLER = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X")
            name = pb_utils.get_input_tensor_by_name(request, "MODEL").as_numpy()[0, 0].decode()
            inner = pb_utils.InferenceRequest(
                model_name=name,
                requested_output_names=["TOTAL"],
                inputs=request.inputs() if name == "around_caller" else [x],
                request_id=request.request_id(),
            )
            answer = inner.exec()
            if answer.has_error():
                responses.append(pb_utils.InferenceResponse(error=answer.error()))
                continue
            total = pb_utils.get_output_tensor_by_name(answer, "TOTAL").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("TOTAL", 2 * total)]))
        return responses
"""
AROUND_CALLER = """
max_batch_size: 8 input { name: "X" } input { name: "MODEL" } output { name: "TOTAL" }
ensemble_scheduling { step {
  model_name: "caller"
  input_map { key: "X" value: "X" } input_map { key: "MODEL" value: "MODEL" } output_map { key: "TOTAL" value: "TOTAL" }
} }
"""
CALLER_ASYNC = """
class TritonPythonModel:
    async def execute(self, requests):
        async def ask(request):
            x = pb_utils.get_input_tensor_by_name(request, "X")
            calls = [
                pb_utils.InferenceRequest(model_name=name, requested_output_names=["TOTAL"], inputs=[x]).async_exec()
                for name in ["sim_sum"] * 200
            ]
            answers = await asyncio.gather(*calls)
            total = sum(pb_utils.get_output_tensor_by_name(a, "TOTAL").as_numpy() for a in answers)
            return pb_utils.InferenceResponse([pb_utils.Tensor("TOTAL", total)])

        return await asyncio.gather(*(ask(request) for request in requests))
"""


def test_models_may_call_others(client: triton.InferenceServerClient, repository: Path) -> None:
    caller_config = config("X INT64 4; MODEL STRING 1", "TOTAL INT64", "dynamic_batching {}")
    write_python(repository, "caller", CALLER, caller_config)
    write_python(repository, "caller_async", CALLER_ASYNC, config("X INT64 4", "TOTAL INT64", "dynamic_batching {}"))
    write_sim(
        repository,
        "sim_sum",
        1,
        "input X INT64 -1 4\noutput TOTAL INT64 -1 = row_sum X\npoison X 666\n",
        "max_batch_size: 8 dynamic_batching {}",
    )
    around = repository / "around_caller"
    (around / "1").mkdir(parents=True)
    (around / "config.pbtxt").write_text(AROUND_CALLER)
    for name in ("sim_sum", "caller", "caller_async", "around_caller"):
        client.load_model(name)

    def call(x: int, model: str, **options: object) -> int:
        inputs = {**rows(x), "MODEL": np.array([[model]], np.object_)}
        return int(client.infer("caller", inputs_of(inputs), **options).as_numpy("TOTAL")[0])

    assert call(5, "sim_sum") == 40
    answer = client.infer("caller_async", inputs_of(rows(3, 4)))
    assert list(answer.as_numpy("TOTAL")) == [200 * 12, 200 * 16]
    for model, x, message in (
        ("nowhere", 1, "unknown model 'nowhere'|model 'nowhere'"),
        ("sim_sum", 666, "poisons this simulated model"),
        ("caller", 1, "model 'caller' waits for this answer itself"),
        ("around_caller", 1, "step 'caller' of ensemble 'around_caller': model 'caller' waits for this answer itself"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            call(x, model)
    assert call(6, "sim_sum") == 48


def test_the_guides_example_works(client: triton.InferenceServerClient, repository: Path) -> None:
    model, configuration = re.findall(r"```(?:python)?\n(.*?)```", GUIDE.read_text(), re.DOTALL)[:2]
    write_python(repository, "guide", model, configuration)
    client.load_model("guide")
    text = np.array([["so say we all"], [""]], dtype=np.object_)
    answer = client.infer("guide", inputs_of({"TEXT": text}))
    assert list(answer.as_numpy("WORDS").ravel()) == [4, 0]
