# SPDX-License-Identifier: Apache-2.0
"""The project's own client, both twins, against a real server: the answers and errors that it promises."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
from gristmill_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    ModelNotFound,
    Unavailable,
)

from .harness import RunningServer, in_threads
from .samples import ABSOLUTE, RELATIVE, SAMPLES, Arrays, Sample

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def assert_recorded(result: object, expected: Arrays) -> None:
    assert isinstance(result, dict)
    for name, array in expected.items():
        assert result[name].dtype == array.dtype
        if array.dtype.kind == "f":
            np.testing.assert_allclose(result[name], array, rtol=RELATIVE, atol=ABSOLUTE)
        else:
            np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize("name", SAMPLES)
async def test_both_clients_get_the_recorded_answers(
    sample_server: RunningServer, sample_repository: Path, name: str
) -> None:
    sample = Sample(sample_repository, name)
    with Client(sample_server.url) as client:
        assert_recorded(dict(client.infer(name, sample.inputs)), sample.outputs)
    async with AsyncClient(sample_server.url) as twin:
        assert_recorded(dict(await twin.infer(name, sample.inputs)), sample.outputs)


def test_every_method(server: RunningServer) -> None:
    with Client(server.url) as client:
        assert client.server_live()
        assert client.server_ready()
        assert client.server_metadata().name == "gristmill"
        assert client.model_ready("echo")
        assert [str(tensor) for tensor in client.model_metadata("echo").inputs] == ["X FP32[-1, 4]"]
        assert client.model_config("echo").max_batch_size == 64
        result = client.infer("echo", ROWS, outputs=["SUM"], request_id="7", parameters={"tenant": "a"})
        assert (result.model_name, result.model_version, result.id) == ("echo", "1", "7")
        assert {name: array.tolist() for name, array in result.items()} == {"SUM": [6, 22]}
        assert client.model_statistics("echo")[0].inference_count == 2
        client.unload_model("echo")
        assert [entry.name for entry in client.models(ready_only=True)] == ["slow"]
        client.load_model("echo", parameters={"config": '{"max_batch_size": 1}'})
        with pytest.raises(InvalidArgument, match="1 to 1 rows"):
            client.infer("echo", ROWS)


async def test_every_method_of_the_twin(server: RunningServer) -> None:
    async with AsyncClient(server.url) as client:
        assert await client.server_live()
        assert await client.server_ready()
        assert (await client.server_metadata()).name == "gristmill"
        assert await client.model_ready("echo")
        assert [str(tensor) for tensor in (await client.model_metadata("echo")).inputs] == ["X FP32[-1, 4]"]
        assert (await client.model_config("echo")).max_batch_size == 64
        results = await asyncio.gather(*(client.infer("echo", ROWS + number) for number in range(100)))
        assert [result["SUM"].tolist() for result in results] == [[6 + 4 * n, 22 + 4 * n] for n in range(100)]
        assert (await client.model_statistics("echo"))[0].inference_count == 200
        await client.unload_model("echo")
        assert [entry.name for entry in await client.models(ready_only=True)] == ["slow"]
        await client.load_model("echo")
        assert await client.model_ready("echo")


async def test_errors_have_a_class_and_the_servers_words(server: RunningServer) -> None:
    with Client(server.url) as client:
        with pytest.raises(ModelNotFound, match="nobody"):
            client.infer("nobody", {"X": ROWS})
        with pytest.raises(InvalidArgument, match=r"expects FP32\[-1,4\] for input 'X' but got FP64\[2,4\]"):
            client.infer("echo", {"X": ROWS.astype(np.float64)})
        with pytest.raises(DeadlineExceeded, match="slow"):
            client.infer("slow", {"X": ROWS[:, :1]}, timeout=0.05)
    async with AsyncClient(server.url) as twin:
        with pytest.raises(ModelNotFound, match="nobody"):
            await twin.infer("nobody", {"X": ROWS})
        with pytest.raises(DeadlineExceeded, match="slow"):
            await twin.infer("slow", {"X": ROWS[:, :1]}, timeout=0.05)


def test_one_client_serves_many_threads(server: RunningServer) -> None:
    with Client(server.url) as client:

        def call(number: int) -> None:
            for turn in range(20):
                rows = np.full((1 + turn % 3, 4), number, dtype=np.float32)
                assert client.infer("echo", rows, timeout=math.inf)["Y"].tobytes() == rows.tobytes()

        in_threads(16, call)


def test_no_server_is_unavailable(server: RunningServer) -> None:
    server.signal()
    assert server.wait() == 0
    with Client(server.url) as client, pytest.raises(Unavailable, match=server.url):
        client.server_live()
