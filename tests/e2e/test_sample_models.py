# SPDX-License-Identifier: Apache-2.0
"""Every sample model, called by an unmodified tritonclient in each of its three ways: the recorded answers come."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from .harness import LIMIT_S, RunningServer, inputs_of
from .samples import SAMPLES, Sample, assert_same


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request: pytest.FixtureRequest, sample_repository: Path) -> Sample:
    return Sample(sample_repository, request.param)


def test_the_recorded_rows_get_the_recorded_answers(sample_server: RunningServer, sample: Sample) -> None:
    with sample_server.client() as client:
        assert client.is_model_ready(sample.name, sample.directory.name)
        answer = client.infer(sample.name, inputs_of(sample.inputs))
        assert_same(answer, sample.outputs)
        assert answer.get_response().model_version == sample.directory.name


def test_metadata_names_what_the_model_has(sample_server: RunningServer, sample: Sample) -> None:
    with sample_server.client() as client:
        metadata = client.get_model_metadata(sample.name)
    assert metadata.platform == "onnxruntime_onnx"
    assert list(metadata.versions) == [sample.directory.name]
    assert {tensor.name for tensor in metadata.inputs} == {tensor.name for tensor in sample.session.get_inputs()}
    assert {tensor.name for tensor in metadata.outputs} == {tensor.name for tensor in sample.session.get_outputs()}
    assert all(tensor.shape[0] == -1 for tensor in metadata.inputs)


async def test_the_asyncio_client_gets_the_same(sample_server: RunningServer, sample: Sample) -> None:
    async with triton_aio.InferenceServerClient(sample_server.url) as client:
        assert_same(await client.infer(sample.name, inputs_of(sample.inputs)), sample.outputs)


def test_callbacks_get_the_same(sample_server: RunningServer, sample: Sample) -> None:
    answers: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    with sample_server.client() as client:
        for _ in range(8):
            client.async_infer(
                sample.name, inputs_of(sample.inputs), lambda result, error: answers.put((result, error))
            )
        for _ in range(8):
            result, error = answers.get(timeout=LIMIT_S)
            assert error is None
            assert result is not None
            assert_same(result, sample.outputs)
