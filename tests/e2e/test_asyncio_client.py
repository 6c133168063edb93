# SPDX-License-Identifier: Apache-2.0
"""The same rpcs by tritonclient's asyncio client, and what it can do besides: metadata, compression, cancellation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from .harness import RunningServer, inputs_of

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(server.url) as client:
        yield client


async def test_health_and_descriptions(client: triton_aio.InferenceServerClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("echo", "1")
    assert not await client.is_model_ready("nobody")
    metadata = await client.get_server_metadata(as_json=True)
    assert metadata["name"] == "gristmill"
    assert {"model_repository", "model_configuration", "statistics"} <= set(metadata["extensions"])
    model = await client.get_model_metadata("echo", as_json=True)
    assert (model["versions"], model["platform"]) == (["1"], "sim")
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "4"]}]
    config = (await client.get_model_config("echo", as_json=True))["config"]
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("echo", "sim", 64)


async def test_repository_calls(client: triton_aio.InferenceServerClient) -> None:
    await client.load_model("echo", config=json.dumps({"max_batch_size": 2}))
    with pytest.raises(InferenceServerException, match="1 to 2 rows"):
        await client.infer("echo", inputs_of({"X": np.repeat(ROW, 3, axis=0)}))
    await client.load_model("echo")  # config.pbtxt, or its absence, counts again
    assert (await client.infer("echo", inputs_of({"X": np.repeat(ROW, 3, axis=0)}))).as_numpy("SUM").tolist() == [6] * 3
    await client.unload_model("echo", unload_dependents=True)
    index = (await client.get_model_repository_index(as_json=True))["models"]
    assert {entry["name"]: entry["state"] for entry in index} == {"echo": "UNAVAILABLE", "slow": "READY"}
    with pytest.raises(InferenceServerException) as unknown:
        await client.unload_model("nobody")
    assert unknown.value.status() == "StatusCode.NOT_FOUND"


async def test_statistics_of_one_model_and_of_all(client: triton_aio.InferenceServerClient) -> None:
    await client.infer("echo", inputs_of({"X": ROW}))
    (one,) = (await client.get_inference_statistics("echo", "1")).model_stats
    assert one.inference_count == 1
    assert {stats.name for stats in (await client.get_inference_statistics()).model_stats} == {"echo", "slow"}
    with pytest.raises(InferenceServerException) as unknown:
        await client.get_inference_statistics("nobody")
    assert unknown.value.status() == "StatusCode.NOT_FOUND"


async def test_what_is_not_served_says_so(client: triton_aio.InferenceServerClient) -> None:
    for call in (
        client.get_system_shared_memory_status(),
        client.unregister_system_shared_memory(),
        client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 64),
        client.unregister_cuda_shared_memory(),
        client.get_cuda_shared_memory_status(),
        client.update_trace_settings(settings={"trace_rate": "1"}),
        client.update_log_settings(settings={"log_info": True}),
    ):
        with pytest.raises(InferenceServerException, match="not served by this server") as refused:
            await call
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
async def test_metadata_and_compression_change_nothing(
    client: triton_aio.InferenceServerClient, compression: str | None
) -> None:
    answer = await client.infer(
        "echo",
        inputs_of({"X": ROW}),
        headers={"x-request-id": "7", "authorization": "Bearer abc"},
        parameters={"tenant": "a", "trial": True, "share": 3},
        request_id="füße",
        priority=1,
        compression_algorithm=compression,
    )
    assert answer.as_numpy("Y").tobytes() == ROW.tobytes()
    assert answer.get_response().id == "füße"


@pytest.mark.parametrize(
    "sequence",
    [
        {"sequence_id": 5, "sequence_start": True},
        {"sequence_id": "conversation"},
    ],
)
async def test_a_sequence_is_refused_by_a_model_that_keeps_no_state(
    client: triton_aio.InferenceServerClient, sequence: dict[str, object]
) -> None:
    with pytest.raises(InferenceServerException, match="keeps no state between requests") as refused:
        await client.infer("echo", inputs_of({"X": ROW}), **sequence)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("unserved", [{"outputs": [triton.InferRequestedOutput("Y", class_count=2)]}])
async def test_what_infer_does_not_serve_is_refused_and_never_ignored(
    client: triton_aio.InferenceServerClient, unserved: dict[str, object]
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        await client.infer("echo", inputs_of({"X": ROW}), **unserved)
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
    assert "not supported" in refused.value.message()


async def test_a_call_that_its_caller_abandons_does_not_disturb_the_others(
    client: triton_aio.InferenceServerClient,
) -> None:
    slow = inputs_of({"X": ROW[:, :1]})
    abandoned = [asyncio.ensure_future(client.infer("slow", slow)) for _ in range(30)]
    kept = asyncio.ensure_future(client.infer("slow", slow))
    await client.infer("echo", inputs_of({"X": ROW}))  # on the same connection, so the others have arrived
    for call in abandoned:
        call.cancel()
    results = await asyncio.gather(*abandoned, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert (await kept).as_numpy("Y").tolist() == [[0]]
    (statistics,) = (await client.get_inference_statistics("slow")).model_stats
    assert statistics.inference_count < 31


async def test_calls_that_cannot_be_answered_in_time_end_at_their_deadline(server: RunningServer) -> None:
    request = triton.service_pb2.ModelInferRequest(model_name="slow", raw_input_contents=[bytes(4)])
    request.inputs.add(name="X", datatype="FP32", shape=[1, 1])
    async with grpc.aio.insecure_channel(server.url) as channel:
        stub = triton.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        patient = stub.ModelInfer(request)
        late = [stub.ModelInfer(request, timeout=0.3) for _ in range(8)]  # 0.2 s each, one after another
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        await patient
    codes = [one.code() for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert codes
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
