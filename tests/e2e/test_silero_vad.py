# SPDX-License-Identifier: Apache-2.0
"""Audio streamed chunk by chunk by many callers, beside what the package silero-vad answers for the same audio."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from training.silero_vad import CHUNK, CONFIG, MODEL_FILE, SAMPLE_RATE, with_states

from .harness import RunningServer, inputs_of, serve

CALLERS, CHUNKS = 12, 40
PACKAGED_FILE = Path(str(distribution("silero-vad").locate_file(MODEL_FILE)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("silero")
    (repository / "silero_vad" / "1").mkdir(parents=True)
    (repository / "silero_vad" / "1" / "model.onnx").write_bytes(with_states(PACKAGED_FILE.read_bytes()))
    (repository / "silero_vad" / "config.pbtxt").write_text(CONFIG)
    with serve(repository, frontend=frontend) as running:
        yield running


def audio_of(caller: int) -> npt.NDArray[np.float32]:
    """Voiced sound (harmonics of a gliding pitch, opened and closed four times a second), silence and noise."""
    random = np.random.default_rng(caller)
    seconds = np.arange(CHUNKS * CHUNK) / SAMPLE_RATE
    pitch = 110 + 10 * caller + 20 * np.sin(2 * np.pi * seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = sum(np.sin(n * phase) / n for n in range(1, 20))
    opened = np.clip(np.sin(2 * np.pi * 4 * seconds), 0, 1) * (np.sin(2 * np.pi * 0.7 * seconds) > 0)
    return (0.2 * voice * opened + random.normal(0, 0.003, seconds.size)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:This model support only")
def test_streams_of_many_callers_are_answered_as_the_package_answers_them(server: RunningServer) -> None:
    from silero_vad.utils_vad import OnnxWrapper

    package = OnnxWrapper(str(PACKAGED_FILE))

    def stream(caller: int) -> list[float]:
        chunks = audio_of(caller).reshape(CHUNKS, 1, CHUNK)
        with server.client() as client:
            answers = [
                client.infer(
                    "silero_vad",
                    inputs_of({"AUDIO": chunk}),
                    sequence_id=caller + 1,
                    sequence_start=number == 0,
                    sequence_end=number == CHUNKS - 1,
                )
                for number, chunk in enumerate(chunks)
            ]
        return [answer.as_numpy("PROBABILITY").item() for answer in answers]

    with ThreadPoolExecutor(CALLERS) as pool:
        streamed = list(pool.map(stream, range(CALLERS)))
    highest = 0.0
    for caller, probabilities in enumerate(streamed):
        package.reset_states()
        audio = torch.from_numpy(audio_of(caller)).reshape(CHUNKS, CHUNK)
        expected = [package(chunk, SAMPLE_RATE).item() for chunk in audio]
        np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-4)
        highest = max(highest, *expected)
    assert highest > 0.3  # the audio is such that the model has something to say
