# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from .fakes import FakeEngine, add_config, add_version
from .manager_harness import Changes, make_manager, states, until


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


async def test_poll_follows_new_versions_and_models(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "a", 1, "a1")
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    await manager.poll()
    assert engine.publications == [("a", [1])]
    old = engine.published["a"][1]
    add_version(tmp_path, "a", 2, "a2", manifest=True)
    add_version(tmp_path, "b", 1, "b1", manifest=True)
    await manager.poll()
    assert engine.contents("a") == {2: "a2"}
    assert engine.contents("b") == {1: "b1"}
    await until(old.drained.is_set)


async def test_poll_takes_versions_without_manifest_once_they_have_settled(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "v1")
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    add_version(tmp_path, "m", 2, "half")
    await manager.poll()
    assert engine.contents("m") == {1: "v1"}
    add_version(tmp_path, "m", 2, "half and half")
    await manager.poll()
    assert engine.contents("m") == {1: "v1"}
    await manager.poll()
    assert engine.contents("m") == {2: "half and half"}


async def test_poll_keeps_a_version_while_it_is_being_overwritten(engine: FakeEngine, tmp_path: Path) -> None:
    directory = add_version(tmp_path, "m", 1, "v1")
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    add_version(tmp_path, "m", 1, "anew")
    await manager.poll()
    assert engine.contents("m") == {1: "v1"}
    await manager.poll()
    assert engine.contents("m") == {1: "anew"}
    stat = (directory / "model.sim").stat()
    os.utime(directory / "model.sim", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    await manager.poll()
    await manager.poll()
    assert engine.publications[-1] == ("m", [1])
    assert len(engine.publications) == 3


async def test_poll_takes_a_configuration_once_it_has_settled(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    config = add_config(tmp_path, "m", "max_batch_size: 3")
    await manager.poll()
    assert manager.find("m").config.max_batch_size == 64
    await manager.poll()
    assert manager.find("m").config.max_batch_size == 3
    config.unlink()
    await manager.poll()
    assert manager.find("m").config.max_batch_size == 64


async def test_poll_tries_a_failed_version_again_only_when_something_changes(
    engine: FakeEngine, tmp_path: Path
) -> None:
    add_version(tmp_path, "m", 1, "v1")
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    add_version(tmp_path, "m", 2, "fail", manifest=True)
    await manager.poll()
    assert await states(manager) == {("m", "1"): "READY", ("m", "2"): "UNAVAILABLE"}
    count = len(engine.publications)
    await manager.poll()
    assert len(engine.publications) == count
    add_version(tmp_path, "m", 3, "v3", manifest=True)
    await manager.poll()
    assert engine.contents("m") == {3: "v3"}


async def test_poll_unloads_a_model_whose_directory_is_gone(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    changes = Changes()
    manager = make_manager(engine, tmp_path, "poll", changes=changes)
    await manager.start()
    servable = engine.published["m"][1]
    shutil.rmtree(tmp_path / "m")
    await manager.poll()
    assert "m" not in engine.published
    assert servable.drained.is_set()
    assert await manager.index() == []
    assert changes.seen[-1] == ("m", False)
    add_version(tmp_path, "m", 1, "back", manifest=True)
    await manager.poll()
    assert engine.contents("m") == {1: "back"}


async def test_poll_of_a_lost_repository_keeps_everything(engine: FakeEngine, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    add_version(repository, "m", 1, "v1")
    manager = make_manager(engine, repository, "poll")
    await manager.start()
    repository.rename(tmp_path / "away")
    await manager.poll()
    assert engine.contents("m") == {1: "v1"}
    (tmp_path / "away").rename(repository)
    await manager.poll()
    assert engine.publications == [("m", [1])]


async def test_polling_is_not_held_up_by_a_slow_model(engine: FakeEngine, tmp_path: Path) -> None:
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    ticks: asyncio.Queue[None] = asyncio.Queue()
    polling = asyncio.create_task(manager.run_polling(ticks.get))
    add_version(tmp_path, "slow", 1, "block", manifest=True)
    ticks.put_nowait(None)
    await until(lambda: engine.blocked.acquire(blocking=False))
    add_version(tmp_path, "quick", 1, "quick", manifest=True)
    ticks.put_nowait(None)
    await until(lambda: manager.names() == ["quick"])
    engine.release()
    await until(lambda: manager.names() == ["quick", "slow"])
    polling.cancel()
