# SPDX-License-Identifier: Apache-2.0
"""Answers that are kept: the same for whoever asks the same, and never another version's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .harness import RunningServer, inputs_of, serve, write_sim

#: TOTAL is per row the sum of X; NOTE is of no consequence to it.
TEXT = """
input X INT64 -1 4
input NOTE INT64 -1 1
output TOTAL INT64 -1 = row_sum X
output NOTED INT64 -1 1 = identity NOTE
output COMPANY INT64 -1 = batch_rows
poison X 666
latency_us 1:%d
"""
CACHED = "max_batch_size: 8 dynamic_batching {} response_cache { enable: true } %s"


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


MODELS = {
    "cached": (0, CACHED % ""),
    "slow": (300_000, CACHED % ""),
    "by_x": (0, CACHED % parameter("response_cache_inputs", "X")),
    "brief": (0, CACHED % parameter("response_cache_ttl_ms", "50")),
    "plain": (0, "max_batch_size: 8 dynamic_batching {}"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Path:
    repository = tmp_path_factory.mktemp("cached")
    for name, (latency_us, config) in MODELS.items():
        write_sim(repository, name, 1, TEXT % latency_us, config)
    return repository


@pytest.fixture(scope="module")
def server(repository: Path, frontend: str) -> Iterator[RunningServer]:
    with serve(repository, "--model-control-mode", "explicit", "--load-model", "*", frontend=frontend) as running:
        yield running


def ask(
    client: triton.InferenceServerClient,
    model: str,
    x: int,
    note: int = 0,
    outputs: tuple[str, ...] = (),
    **options: object,
) -> triton.InferResult:
    inputs = inputs_of({"X": np.full((1, 4), x, np.int64), "NOTE": np.full((1, 1), note, np.int64)})
    wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
    return client.infer(model, inputs, outputs=wanted, **options)


def counts(client: triton.InferenceServerClient, model: str) -> tuple[int, int, int]:
    """Hits, misses, runs."""
    statistics = client.get_inference_statistics(model).model_stats[0]
    inference = statistics.inference_stats
    return inference.cache_hit.count, inference.cache_miss.count, statistics.execution_count


def test_an_equal_request_is_answered_without_a_run(client: triton.InferenceServerClient) -> None:
    hits, misses, runs = counts(client, "cached")
    first = ask(client, "cached", 11, request_id="first")
    again = ask(client, "cached", 11, request_id="again")
    assert counts(client, "cached") == (hits + 1, misses + 1, runs + 1)
    answer = first.get_response()
    answer.id = "again"
    assert again.get_response() == answer
    assert ask(client, "cached", 12).as_numpy("TOTAL").item() == 48
    assert counts(client, "cached") == (hits + 1, misses + 2, runs + 2)


def test_outputs_come_in_the_order_asked_for(client: triton.InferenceServerClient) -> None:
    ask(client, "cached", 21, outputs=("TOTAL", "NOTED"))
    hits, misses, runs = counts(client, "cached")
    turned = ask(client, "cached", 21, outputs=("NOTED", "TOTAL"))
    assert [output.name for output in turned.get_response().outputs] == ["NOTED", "TOTAL"]
    assert turned.as_numpy("TOTAL").item() == 84
    assert counts(client, "cached") == (hits + 1, misses, runs)
    ask(client, "cached", 21, outputs=("TOTAL",))
    assert counts(client, "cached") == (hits + 1, misses + 1, runs + 1)


def test_inputs_that_do_not_matter_may_be_left_out_of_the_key(client: triton.InferenceServerClient) -> None:
    ask(client, "by_x", 1, note=1)
    hits, _, runs = counts(client, "by_x")
    assert ask(client, "by_x", 1, note=2).as_numpy("NOTED").item() == 1  # as configured
    assert counts(client, "by_x")[::2] == (hits + 1, runs)
    ask(client, "cached", 31, note=1)
    assert ask(client, "cached", 31, note=2).as_numpy("NOTED").item() == 2


def test_an_answer_is_kept_no_longer_than_its_time(client: triton.InferenceServerClient) -> None:
    ask(client, "brief", 1)
    time.sleep(0.06)
    runs = counts(client, "brief")[2]
    ask(client, "brief", 1)
    assert counts(client, "brief")[2] == runs + 1


def test_equal_requests_at_the_same_time_are_run_once(
    server: RunningServer, client: triton.InferenceServerClient
) -> None:
    hits, misses, runs = counts(client, "slow")

    def call(_: int) -> int:
        with server.client() as own:
            return int(ask(own, "slow", 5).as_numpy("TOTAL").item())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [20] * 8
    assert counts(client, "slow") == (hits + 7, misses + 1, runs + 1)


def test_who_waits_for_another_s_answer_is_run_if_that_one_gives_up(
    server: RunningServer, client: triton.InferenceServerClient
) -> None:
    with ThreadPoolExecutor(3) as pool, server.client() as busy, server.client() as first, server.client() as second:
        blocker = pool.submit(ask, busy, "slow", 70)
        time.sleep(0.05)
        gives_up = pool.submit(ask, first, "slow", 71, client_timeout=0.1)
        time.sleep(0.02)
        waits = pool.submit(ask, second, "slow", 71)
        with pytest.raises(InferenceServerException):
            gives_up.result()
        assert waits.result().as_numpy("TOTAL").item() == 284
        blocker.result()


def test_failures_are_not_kept(client: triton.InferenceServerClient) -> None:
    hits, misses, _ = counts(client, "cached")
    for _ in range(2):
        with pytest.raises(InferenceServerException, match="poisons"):
            ask(client, "cached", 666)
        with pytest.raises(InferenceServerException, match="no input 'Z'"):
            client.infer("cached", inputs_of({"Z": np.ones((1, 4), np.int64)}))
        with pytest.raises(InferenceServerException, match="keeps no state"):
            ask(client, "cached", 1, sequence_id=1, sequence_start=True)
    assert counts(client, "cached")[:2] == (hits, misses)


def test_a_version_never_answers_with_another_s(client: triton.InferenceServerClient, repository: Path) -> None:
    assert ask(client, "cached", 41).as_numpy("TOTAL").item() == 164
    write_sim(repository, "cached", 2, (TEXT % 0).replace("row_sum X", "row_sum NOTE"))
    client.load_model("cached")
    answer = ask(client, "cached", 41)
    assert answer.get_response().model_version == "2"
    assert answer.as_numpy("TOTAL").item() == 0


def test_a_model_that_does_not_ask_for_it_is_not_cached(client: triton.InferenceServerClient) -> None:
    for runs in (1, 2):
        ask(client, "plain", 1)
        assert counts(client, "plain") == (0, 0, runs)


def test_small_caches_hold_what_fits(repository: Path, frontend: str) -> None:
    with serve(repository, "--response-cache-bytes", "16000", frontend=frontend) as small, small.client() as client:
        for x in range(200):
            ask(client, "by_x", x)
        hits, _, runs = counts(client, "by_x")
        for x in range(200):
            assert ask(client, "by_x", x).as_numpy("TOTAL").item() == 4 * x
        assert counts(client, "by_x")[2] > runs + 150
        ask(client, "by_x", 199)
        assert counts(client, "by_x")[0] > hits
    with serve(repository, "--response-cache-bytes", "0", frontend=frontend) as none, none.client() as client:
        for _ in range(2):
            ask(client, "by_x", 1)
        assert counts(client, "by_x")[::2] == (0, 2)
