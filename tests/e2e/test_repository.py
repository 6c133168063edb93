# SPDX-License-Identifier: Apache-2.0
"""Versions come and go under load, and no request fails."""

from __future__ import annotations

import json
import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .conftest import ECHO
from .harness import LIMIT_S, RunningServer, inputs_of, serve, state_of, wait_until, write_sim

ROW = np.ones((1, 4), dtype=np.float32)


class Load:
    """Callers that call without a pause; the versions that answered, and every failure."""

    def __init__(self) -> None:
        self.answered = 0
        self.versions: set[str] = set()
        self.failures: list[BaseException] = []


@contextmanager
def load_on(server: RunningServer, model: str, callers: int = 16) -> Iterator[Load]:
    load = Load()
    stop = threading.Event()

    def body() -> None:
        try:
            with server.client() as client:
                while not stop.is_set():
                    answer = client.infer(model, inputs_of({"X": ROW}))
                    assert answer.as_numpy("Y").tolist() == ROW.tolist()
                    load.versions.add(answer.get_response().model_version)
                    load.answered += 1
        except BaseException as failure:
            load.failures.append(failure)

    threads = [threading.Thread(target=body) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: load.answered >= callers or bool(load.failures), "the load to begin")
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert not load.failures, load.failures


def test_reloads_under_load_fail_no_request(server: RunningServer) -> None:
    with load_on(server, "echo") as load, server.client() as client:
        for turn in range(50):
            # A load without a change would keep what is there.
            size = 16 + turn % 2
            client.load_model("echo", config=json.dumps({"max_batch_size": size, "dynamic_batching": {}}))
            assert client.get_model_config("echo").config.max_batch_size == size
        before = load.answered
        wait_until(lambda: load.answered > before + 16, "requests after the last reload")


def test_requests_in_flight_finish_on_the_version_that_took_them(server: RunningServer, repository: Path) -> None:
    """Three requests wait for company in version 1 when version 2 takes over. That they wait, a fourth one shows."""
    batching = {"max_queue_delay_microseconds": 600_000_000, "default_queue_policy": {"max_queue_size": 3}}
    outcomes: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.Queue()
    with server.client() as client, server.client() as admin:
        admin.load_model("echo", config=json.dumps({"max_batch_size": 64, "dynamic_batching": batching}))
        for _ in range(4):
            client.async_infer("echo", inputs_of({"X": ROW}), lambda result, error: outcomes.put((result, error)))
        _, refusal = outcomes.get(timeout=LIMIT_S)
        assert refusal is not None
        assert refusal.status() == "StatusCode.RESOURCE_EXHAUSTED"
        write_sim(repository, "echo", 2, ECHO)
        admin.load_model("echo")
        for _ in range(3):
            answer, error = outcomes.get(timeout=LIMIT_S)
            assert error is None
            assert answer is not None
            assert answer.get_response().model_version == "1"
            assert answer.as_numpy("COMPANY").tolist() == [3]
        assert client.infer("echo", inputs_of({"X": ROW})).get_response().model_version == "2"


def test_published_versions_take_over_under_load(tmp_path: Path, frontend: str) -> None:
    write_sim(tmp_path, "echo", 1, ECHO)
    with serve(tmp_path, "--model-control-mode", "poll", "--repository-poll-secs", "0.1", frontend=frontend) as server:
        with load_on(server, "echo") as load:
            for version in (2, 3, 4):
                write_sim(tmp_path, "echo", version, ECHO)
                wait_until(partial(load.versions.__contains__, str(version)), f"answers by version {version}")
        with server.client() as client:
            assert client.is_model_ready("echo", "4")
            assert not client.is_model_ready("echo", "1")
            shutil.rmtree(tmp_path / "echo")
            wait_until(lambda: not client.is_model_ready("echo"), "the deleted model to go")


def test_a_damaged_version_never_replaces_a_good_one(server: RunningServer, repository: Path) -> None:
    write_sim(repository, "echo", 2, "this is no model")
    with server.client() as client:
        with pytest.raises(InferenceServerException):
            client.load_model("echo")
        states = state_of(client, "echo")
        assert states["1"][0] == "READY"
        assert states["2"][0] == "UNAVAILABLE"
        assert "line 1" in states["2"][1]
        answer = client.infer("echo", inputs_of({"X": ROW}))
        assert answer.get_response().model_version == "1"


def test_a_wrong_configuration_leaves_what_is_served(repository: Path, frontend: str) -> None:
    polled = ("--model-control-mode", "poll", "--repository-poll-secs", "0.1")
    with (
        serve(repository, *polled, frontend=frontend) as server,
        load_on(server, "echo") as load,
        server.client() as client,
    ):
        (repository / "echo" / "config.pbtxt").write_text("max_batch_size: 8\nbatch_size: 9\n")
        wait_until(lambda: bool(state_of(client, "echo")["1"][1]), "the reason")
        state, reason = state_of(client, "echo")["1"]
        assert state == "READY"
        assert "config.pbtxt:2" in reason
        assert "batch_size" in reason
        before = load.answered
        wait_until(lambda: load.answered > before + 16, "requests after the failure")
        (repository / "echo" / "config.pbtxt").write_text("max_batch_size: 8\n")
        wait_until(lambda: client.get_model_config("echo").config.max_batch_size == 8, "the corrected configuration")
        assert state_of(client, "echo")["1"] == ("READY", "")


def test_a_wrong_configuration_says_what_is_wrong(repository: Path, frontend: str) -> None:
    (repository / "echo" / "config.pbtxt").write_text('max_batch_size: 8\ninput { name: "X" optional: true }\n')
    with serve(repository, frontend=frontend) as server, server.client() as client:
        assert not client.is_model_ready("echo")
        assert client.is_model_ready("slow")
        reasons = " ".join(reason for _, reason in state_of(client, "echo").values())
        assert "config.pbtxt" in reasons
        assert "optional" in reasons


def test_version_policy_decides_what_is_served(repository: Path, frontend: str) -> None:
    for version in (2, 3):
        write_sim(repository, "echo", version, ECHO)
    (repository / "echo" / "config.pbtxt").write_text("version_policy { specific { versions: [1, 3] } }\n")
    with serve(repository, frontend=frontend) as server, server.client() as client:
        assert [client.is_model_ready("echo", str(version)) for version in (1, 2, 3)] == [True, False, True]
        newest = client.infer("echo", inputs_of({"X": ROW}))
        chosen = client.infer("echo", inputs_of({"X": ROW}), model_version="1")
        assert newest.get_response().model_version == "3"
        assert chosen.get_response().model_version == "1"


def test_the_latest_versions_are_served(repository: Path, frontend: str) -> None:
    for version in (2, 3):
        write_sim(repository, "echo", version, ECHO)
    config = repository / "echo" / "config.pbtxt"
    config.write_text("version_policy { latest { num_versions: 2 } }\n")
    explicit = ("--model-control-mode", "explicit", "--load-model", "echo")
    with serve(repository, *explicit, frontend=frontend) as server, server.client() as client:
        assert list(client.get_model_metadata("echo").versions) == ["2", "3"]
        config.write_text("version_policy { all {} }\n")
        client.load_model("echo")
        assert list(client.get_model_metadata("echo").versions) == ["1", "2", "3"]
        config.unlink()
        client.load_model("echo")
        assert list(client.get_model_metadata("echo").versions) == ["3"]
        with pytest.raises(InferenceServerException) as gone:
            client.infer("echo", inputs_of({"X": ROW}), model_version="1")
        assert gone.value.status() in ("StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE")


def test_a_damaged_file_is_named_and_not_served(repository: Path, frontend: str) -> None:
    model = repository / "echo" / "1" / "model.sim"
    model.write_text(model.read_text().replace("666", "667"))
    with serve(repository, frontend=frontend) as server, server.client() as client:
        state, reason = state_of(client, "echo")["1"]
        assert state == "UNAVAILABLE"
        assert "model.sim is damaged" in reason
        assert client.is_model_ready("slow")


def test_unload_answers_what_was_admitted(server: RunningServer) -> None:
    answers: list[Exception | None] = []
    with server.client() as client, server.client() as admin:
        for _ in range(3):
            client.async_infer("slow", inputs_of({"X": ROW[:, :1]}), lambda result, error: answers.append(error))
        wait_until(lambda: len(answers) >= 1, "the first answer")
        admin.unload_model("slow")
        wait_until(lambda: len(answers) == 3, "the other answers")
        assert not admin.is_model_ready("slow")
    assert answers == [None, None, None]
