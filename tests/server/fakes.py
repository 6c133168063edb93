# SPDX-License-Identifier: Apache-2.0
"""An engine and a bridge in the tests' hands, with the interfaces of gristmill._core, and a repository to fill."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from gristmill.repository.layout import VersionDirectory
from gristmill_protos.model_config_pb2 import ModelConfig

# Generous: reached only when a test fails.
LIMIT_S = 30


class FakeCoreError(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(code.value[0], message)
        self.code = code.value[0]
        self.message = message


@dataclass(frozen=True)
class FakeTensor:
    name: str
    datatype: str
    dims: list[int]


@dataclass
class FakeOpenedModel:
    path: Path
    backend: str
    parameters: dict[str, str]
    inputs: list[FakeTensor]
    outputs: list[FakeTensor]


@dataclass
class FakeServable:
    version: int
    config: ModelConfig
    content: str
    pending: int = 0
    drained: threading.Event = field(default_factory=threading.Event)
    # Cleared by a test, it stands for requests that are not answered yet.
    may_drain: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_drain.set()

    def drain(self) -> None:
        assert self.may_drain.wait(LIMIT_S)
        self.drained.set()

    def statistics(self) -> dict[str, Any]:
        one = {"count": 1, "ns": 5}
        return {
            "last_inference_ms": 1234,
            "inference_count": 3,
            "execution_count": 1,
            "success": one,
            "fail": {"count": 0, "ns": 0},
            "queue": one,
            "compute_input": one,
            "compute_infer": {"count": 1, "ns": 7},
            "compute_output": one,
            "cache_hit": one,
            "cache_miss": one,
            "batch_stats": [{"batch_size": 3, "compute_input": one, "compute_infer": one, "compute_output": one}],
        }


class FakeEngine:
    """Serves what `publish` says. A model file with "fail" in it cannot be opened; with "block", not before release().

    A file is text: one word, and optionally tensors as "in:NAME:FP32:-1,4" or "out:…"; without any, x and y of [-1, 4].
    """

    def __init__(self) -> None:
        self.published: dict[str, dict[int, FakeServable]] = {}
        self.reasons: dict[str, str] = {}
        self.opened: list[FakeOpenedModel] = []
        self.publications: list[tuple[str, list[int]]] = []
        self.blocked = threading.Semaphore(0)
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()

    def open_model(self, *, backend: str, path: str, parameters: Mapping[str, str]) -> FakeOpenedModel:
        text = Path(path).read_text()
        if "block" in text:
            self.blocked.release()
            assert self._released.wait(LIMIT_S)
        if "fail" in text:
            raise FakeCoreError(grpc.StatusCode.INTERNAL, f"cannot open {Path(path).name}: told to fail")
        tensors: dict[str, list[FakeTensor]] = {"in": [], "out": []}
        for word in text.split():
            if ":" in word:
                kind, name, datatype, dims = word.split(":")
                tensors[kind].append(FakeTensor(name, datatype, [int(dim) for dim in dims.split(",") if dim]))
        inputs = tensors["in"] or [FakeTensor("x", "FP32", [-1, 4])]
        outputs = tensors["out"] or [FakeTensor("y", "FP32", [-1, 4])]
        opened = FakeOpenedModel(Path(path), backend, dict(parameters), inputs, outputs)
        self.opened.append(opened)
        return opened

    def load(self, model: FakeOpenedModel, options: tuple[ModelConfig, int]) -> FakeServable:
        config, version = options
        return FakeServable(version, config, model.path.read_text())

    def load_ensemble(self, options: tuple[ModelConfig, int]) -> FakeServable:
        config, version = options
        return FakeServable(version, config, " ".join(step.model_name for step in config.ensemble_scheduling.step))

    def publish(
        self, name: str, servables: Sequence[FakeServable], *, aliases: Mapping[str, int] = {}, reason: str = ""
    ) -> None:
        assert not any(servable.drained.is_set() for servable in servables), "published after it was drained"
        self.published[name] = {servable.version: servable for servable in servables}
        self.reasons[name] = reason
        self.publications.append((name, sorted(self.published[name])))

    def forget(self, name: str) -> None:
        self.published.pop(name, None)

    def contents(self, name: str) -> dict[int, str]:
        """What serves requests of a model: the text of each version's file."""
        return {version: servable.content for version, servable in self.published.get(name, {}).items()}


def make_options(config: ModelConfig, version: VersionDirectory) -> Any:
    """Stands in for core_options; FakeEngine.load takes it apart."""
    return config, version.version


class FakeBridge:
    """Keeps what is submitted until the test answers it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.submitted: list[tuple[bytes, Any, float | None]] = []
        self.flushed = 0  # how many of them the engine would have by now
        self.cancelled: list[int] = []
        self._finished: list[tuple[Any, int, bytes | str]] = []

    def fileno(self) -> int:
        return self._read

    def submit(
        self,
        request: bytes,
        tag: Any,
        timeout_s: float | None = None,
        *,
        in_stream: bool = False,
        errors_end_stream: bool = False,
    ) -> int:
        self.submitted.append((request, tag, timeout_s))
        return len(self.submitted) - 1

    def flush(self) -> None:
        self.flushed = len(self.submitted)

    def cancel(self, ticket: int) -> None:
        self.cancelled.append(ticket)

    def finish(self, ticket: int, code: int, payload: bytes | str) -> None:
        self._finished.append((self.submitted[ticket][1], code, payload))
        os.write(self._write, b"x")

    def drain(self) -> list[tuple[Any, int, bytes | str]]:
        os.read(self._read, 4096)
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


def add_version(
    repository: Path,
    model: str,
    version: int | str,
    content: str = "weights",
    *,
    manifest: bool = False,
    file_name: str = "model.sim",
) -> Path:
    """Put a version into a repository, as a publisher does or as a person with `cp` does. Returns its directory."""
    directory = repository / model / str(version)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / file_name).write_text(content)
    if manifest:
        data = content.encode()
        files = {file_name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
        (directory / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))
    return directory


def add_config(repository: Path, model: str, text: str) -> Path:
    path = repository / model / "config.pbtxt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
