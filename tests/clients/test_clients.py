# SPDX-License-Identifier: Apache-2.0
"""One suite for both clients: every test runs on the synchronous one and on its asyncio twin."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import gristmill_client
import grpc
import numpy as np
import pytest
from gristmill_client import (
    AsyncClient,
    Client,
    ClientOptions,
    DeadlineExceeded,
    GristmillError,
    Internal,
    InvalidArgument,
    ModelNotFound,
    ResourceExhausted,
    RetryPolicy,
    Unavailable,
)
from gristmill_client.errors import error_of

from .fakes import FakeServer, running

X = np.array([[1, 2]], np.float32)
QUICK = RetryPolicy(initial_backoff_s=0.02, max_backoff_s=0.04)


class Caller:
    """Calls a method of either client and gives its result."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url

    def __call__(self, method: str, *arguments: Any, options: ClientOptions | None = None, **named: Any) -> Any:
        (result,) = self.several([(method, arguments, named)], options)
        return result

    def several(self, calls: list[tuple[str, Any, Any]], options: ClientOptions | None = None) -> list[Any]:
        """The calls one after the other on one client."""
        options = options or ClientOptions(retry=QUICK)
        if self.kind == "sync":
            with Client(self.url, options) as client:
                return [getattr(client, method)(*arguments, **named) for method, arguments, named in calls]

        async def run() -> list[Any]:
            async with AsyncClient(self.url, options) as client:
                return [await getattr(client, method)(*arguments, **named) for method, arguments, named in calls]

        # One loop for all tests: grpc.aio keeps a poller for the loop it first saw.
        return asyncio.run_coroutine_threadsafe(run(), _loop()).result(60)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture(params=["sync", "asyncio"])
def call(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[Caller]:
    with running(server) as url:
        yield Caller(request.param, url)


def test_infer_by_name(call: Caller, server: FakeServer) -> None:
    result = call("infer", "pair", {"x": X, "y": X + 1}, version="champion", outputs=["x"], request_id="r")
    assert (result.model_name, result.model_version, result.id) == ("pair", "3", "r")
    np.testing.assert_array_equal(result["y"], X + 1)
    request = server.requests[0]
    assert request.model_version == "champion"
    assert [output.name for output in request.outputs] == ["x"]
    assert server.metadata_calls == 0


def test_a_bare_array_goes_to_the_only_input(call: Caller, server: FakeServer) -> None:
    results = call.several([("infer", ("echo", X), {}), ("infer", ("echo", X), {})])
    assert [list(result) for result in results] == [["x"], ["x"]]
    assert server.metadata_calls == 1


def test_what_cannot_succeed_is_refused_before_it_is_sent(call: Caller, server: FakeServer) -> None:
    for arguments, words in (
        (("pair", X), "has 2 inputs"),
        (("echo", X.astype(np.float64)), "expects x FP32"),
        (("echo", [[1, 2]]), "numpy array"),
        (("echo", {"x": [1, 2]}), "numpy array"),
        (("echo", {"x": np.array([1j])}), "complex128"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            call("infer", *arguments)
    with pytest.raises(InvalidArgument, match="positive number"):
        call("server_live", timeout=0)
    assert not server.requests


def test_a_changed_model_is_asked_again(call: Caller, server: FakeServer) -> None:
    """A remembered answer must not refuse an array that the model takes by now."""
    first = Caller(call.kind, call.url)
    first("infer", "echo", X)
    server.datatype = "FP64"
    assert call("infer", "echo", X.astype(np.float64))["x"].dtype == np.float64


def test_parameters_and_headers_reach_the_server(call: Caller, server: FakeServer) -> None:
    parameters = {"flag": True, "count": 2, "ratio": 0.5, "text": "t"}
    options = ClientOptions(headers={"Tenant": "a"})
    call("infer", "echo", {"x": X}, parameters=parameters, options=options)
    sent = server.requests[0].parameters
    assert (sent["flag"].bool_param, sent["count"].int64_param) == (True, 2)
    assert (sent["ratio"].double_param, sent["text"].string_param) == (0.5, "t")
    assert server.headers["tenant"] == "a"


def test_unavailable_is_tried_again(call: Caller, server: FakeServer) -> None:
    server.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    np.testing.assert_array_equal(call("infer", "echo", {"x": X})["x"], X)
    assert len(server.requests) == 3


def test_nothing_else_is_tried_again(call: Caller, server: FakeServer) -> None:
    for code, kind in (
        (grpc.StatusCode.INTERNAL, Internal),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
    ):
        server.requests.clear()
        server.failures = [code]
        with pytest.raises(kind, match=f"scripted {code.name}") as caught:
            call("infer", "echo", {"x": X})
        assert caught.value.code is code
        assert caught.value.model == "echo"
        assert len(server.requests) == 1


def test_retries_can_be_turned_off(call: Caller, server: FakeServer) -> None:
    server.failures = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(Unavailable):
        call("infer", "echo", {"x": X}, options=ClientOptions(retry=None))
    assert len(server.requests) == 1


def test_unknown_models_and_servers(call: Caller) -> None:
    with pytest.raises(ModelNotFound, match="no model 'nobody'"):
        call("infer", "nobody", X)
    lost = Caller(call.kind, "127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        lost("server_live", timeout=5)


def test_a_deadline_ends_a_call(call: Caller, server: FakeServer) -> None:
    server.block.clear()
    with pytest.raises(DeadlineExceeded, match=r"timeout 0\.2 s"):
        call("infer", "echo", {"x": X}, timeout=0.2)


def test_the_other_calls(call: Caller, server: FakeServer) -> None:
    assert call("server_live") is True
    assert call("server_ready") is False
    assert call("server_metadata").extensions == ("statistics",)
    assert call("model_ready", "echo") is True
    assert call("model_ready", "nobody") is False
    assert str(call("model_metadata", "echo").inputs[0]) == "x FP32[-1, 2]"
    assert call("model_config", "echo").max_batch_size == 8
    assert call("model_statistics", "echo")[0].version == "3"
    assert [entry.state for entry in call("models")] == ["READY", "UNAVAILABLE"]
    assert [entry.name for entry in call("models", ready_only=True)] == ["echo"]
    call("load_model", "echo")
    assert server.loaded == ["echo"]
    call("unload_model", "echo")
    assert server.loaded == []


def test_the_twins_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in methods if not name.startswith("_")}

    assert signatures(Client) == signatures(AsyncClient)
    assert set(signatures(Client)) == {
        "close",
        "infer",
        "load_model",
        "model_config",
        "model_metadata",
        "model_ready",
        "model_statistics",
        "models",
        "server_live",
        "server_metadata",
        "server_ready",
        "unload_model",
    }


def test_every_error_class_is_exported_and_made_from_its_code() -> None:
    for kind in GristmillError.__subclasses__():
        assert kind.__name__ in gristmill_client.__all__
        assert type(error_of(kind.default_code, "m")) is kind
    assert type(error_of(grpc.StatusCode.DATA_LOSS, "m")) is GristmillError
