# SPDX-License-Identifier: Apache-2.0
"""Models that answer a request any number of times, over both front ends and an unmodified tritonclient."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .harness import LIMIT_S, RunningServer, inputs_of, serve, wait_until, write_sim
from .python_models import config, write_python

GUIDE = Path(__file__).parents[2] / "docs" / "python_models.md"
DECOUPLED = "model_transaction_policy { decoupled: true }"

#: Answers by a thread of its own: COUNT times, then ends as MODE says.
LATER = """
class TritonPythonModel:
    def initialize(self, args):
        assert pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))

    def execute(self, requests):
        for request in requests:
            count, mode = (int(tensor.as_numpy()[0]) for tensor in request.inputs())
            if mode == 1:
                raise ValueError("mode 1")
            if mode == 2:
                os._exit(5)
            threading.Thread(target=self.answer, args=(request, count, mode), daemon=True).start()

    def answer(self, request, count, mode):
        sender = request.get_response_sender()
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        for number in range(count):
            if mode == 3 and number == 2:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("enough", 3)), flags=final)
                return
            numbers = np.array([number], np.int32)
            flags = final if mode == 4 and number == count - 1 else 0
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("NUMBER", numbers)]), flags=flags)
            if mode == 5:
                if sender.is_cancelled():
                    Path = __import__("pathlib").Path
                    Path(__file__).with_name("cancelled").write_text("yes")
                    sender.send(flags=final)
                    return
                time.sleep(0.01)
        if mode != 4:
            sender.send(flags=final)
"""
#: A caller of such a model, in Python.
CALLER = """
class TritonPythonModel:
    def execute(self, requests):
        inputs = requests[0].inputs()
        answer = pb_utils.InferenceRequest(model_name="later", inputs=inputs).exec()
        return [pb_utils.InferenceResponse(error=answer.error())]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Path:
    repository = tmp_path_factory.mktemp("decoupled")
    later = config("COUNT INT32 1; MODE INT32 1", "NUMBER INT32 1", max_batch_size=0)
    write_python(repository, "later", LATER, later + DECOUPLED)
    write_python(repository, "caller", CALLER, later)
    guide = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    text = config("COUNT INT32 1", "NUMBER INT32 1", DECOUPLED, max_batch_size=1)
    write_python(repository, "guide", guide, text)
    write_sim(repository, "echo", 1, "input X INT32 1\noutput Y INT32 1 = identity X\n", "max_batch_size: 0")
    return repository


@pytest.fixture(scope="module")
def server(repository: Path, frontend: str) -> Iterator[RunningServer]:
    with serve(repository, frontend=frontend) as running:
        yield running


class Stream:
    """tritonclient's stream, with what it has brought."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self.client = client
        self._answers: queue.Queue[triton.InferResult | InferenceServerException] = queue.Queue()
        client.start_stream(lambda result, error: self._answers.put(error or result))

    def ask(self, count: int, mode: int = 0, request_id: str = "r", model: str = "later", **options: object) -> None:
        inputs = inputs_of({"COUNT": np.array([count], np.int32), "MODE": np.array([mode], np.int32)})
        self.client.async_stream_infer(model, inputs, request_id=request_id, **options)

    def take(self) -> triton.InferResult | InferenceServerException:
        return self._answers.get(timeout=LIMIT_S)

    def numbers(self, count: int) -> list[int]:
        taken = []
        for _ in range(count):
            answer = self.take()
            assert isinstance(answer, triton.InferResult), answer
            taken.append(int(answer.as_numpy("NUMBER")[0]))
        return taken


@contextmanager
def stream_to(server: RunningServer) -> Iterator[Stream]:
    with server.client() as client:
        yield Stream(client)
        client.stop_stream()


@pytest.fixture
def stream(server: RunningServer) -> Iterator[Stream]:
    with stream_to(server) as stream:
        yield stream


def is_final(answer: triton.InferResult | InferenceServerException) -> bool:
    assert isinstance(answer, triton.InferResult), answer
    return bool(answer.get_response().parameters["triton_final_response"].bool_param)


def test_a_request_gets_as_many_answers_as_the_model_gives(stream: Stream) -> None:
    for count in (3, 1, 0, 500):
        stream.ask(count)
        assert stream.numbers(count) == list(range(count))


def test_the_end_is_told_to_those_who_ask_for_it(stream: Stream) -> None:
    stream.ask(2, enable_empty_final_response=True, request_id="told")
    answers = [stream.take() for _ in range(3)]
    assert [is_final(answer) for answer in answers] == [False, False, True]
    last = answers[-1]
    assert isinstance(last, triton.InferResult)
    assert last.get_response().id == "told"
    assert last.get_response().model_name == "later"
    assert not last.get_response().outputs


def test_the_last_answer_may_come_with_the_end(stream: Stream) -> None:
    stream.ask(3, mode=4)
    assert stream.numbers(3) == [0, 1, 2]
    stream.ask(1)
    assert stream.numbers(1) == [0]


def test_requests_are_answered_beside_each_other(stream: Stream) -> None:
    for number in range(20):
        stream.ask(10, request_id=str(number))
    taken: dict[str, list[int]] = {}
    for _ in range(200):
        answer = stream.take()
        assert isinstance(answer, triton.InferResult)
        taken.setdefault(answer.get_response().id, []).append(int(answer.as_numpy("NUMBER")[0]))
    assert taken == {str(number): list(range(10)) for number in range(20)}


def test_errors_are_the_requests_own(stream: Stream) -> None:
    for mode, message, before in ((1, "ValueError: mode 1", 0), (3, "enough", 2), (2, "ended with status 5", 0)):
        stream.ask(5, mode=mode)
        assert stream.numbers(before) == list(range(before))
        error = stream.take()
        assert isinstance(error, InferenceServerException)
        assert message in str(error)
    stream.ask(2)
    assert stream.numbers(2) == [0, 1]


def test_a_caller_that_goes_is_noticed(server: RunningServer, repository: Path) -> None:
    with server.client() as client:
        stream = Stream(client)
        stream.ask(1_000_000, mode=5)
        assert stream.numbers(3) == [0, 1, 2]
        client.stop_stream(cancel_requests=True)
    wait_until((repository / "later" / "1" / "cancelled").exists, "the model to notice")
    with stream_to(server) as other:
        other.ask(1)
        assert other.numbers(1) == [0]


def test_one_answer_is_not_enough_for_such_a_model(server: RunningServer) -> None:
    inputs = inputs_of({"COUNT": np.array([1], np.int32), "MODE": np.array([0], np.int32)})
    with server.client() as client:
        for model in ("later", "caller"):
            with pytest.raises(InferenceServerException, match="expected it to be called with ModelStreamInfer"):
                client.infer(model, inputs)


def test_other_models_have_one_answer_in_the_same_stream(stream: Stream) -> None:
    stream.client.async_stream_infer("echo", inputs_of({"X": np.array([7], np.int32)}), request_id="echo")
    answer = stream.take()
    assert isinstance(answer, triton.InferResult)
    assert answer.as_numpy("Y")[0] == 7
    assert "triton_final_response" not in answer.get_response().parameters


def test_the_guides_example_works(stream: Stream) -> None:
    stream.client.async_stream_infer("guide", inputs_of({"COUNT": np.array([[4]], np.int32)}))
    answers = [stream.take() for _ in range(4)]
    assert [int(answer.as_numpy("NUMBER")[0, 0]) for answer in answers] == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_statistics_count_requests_and_not_answers(server: RunningServer) -> None:
    with stream_to(server) as stream:
        before = stream.client.get_inference_statistics("later").model_stats[0].inference_stats.success.count
        stream.ask(50, enable_empty_final_response=True)
        stream.numbers(50)
        assert is_final(stream.take())
        after = stream.client.get_inference_statistics("later").model_stats[0].inference_stats.success.count
    assert after == before + 1


def test_an_unload_waits_for_the_last_answer(repository: Path, frontend: str) -> None:
    arguments = ("--model-control-mode", "explicit", "--load-model", "later")
    with serve(repository, *arguments, frontend=frontend) as running, stream_to(running) as stream:
        stream.ask(300, mode=0)
        stream.numbers(1)
        stream.client.unload_model("later")
        assert stream.numbers(299) == list(range(1, 300))
