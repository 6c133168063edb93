# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from gristmill.repository.errors import RepositoryError

from .fakes import FakeEngine, add_config, add_version
from .manager_harness import Changes, make_manager, reason, states, until


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


# ---- start ----


async def test_start_serves_the_newest_version_of_every_model(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "a", 1, "a1")
    add_version(tmp_path, "a", 2, "a2", manifest=True)
    add_version(tmp_path, "b", 3, "b3")
    manager = make_manager(engine, tmp_path)
    assert not manager.started
    await manager.start()
    assert manager.started
    assert manager.all_ready
    assert engine.contents("a") == {2: "a2"}
    assert engine.contents("b") == {3: "b3"}
    assert await states(manager) == {("a", "2"): "READY", ("b", "3"): "READY"}
    assert manager.find("a").version == 2
    assert manager.names() == ["a", "b"]


async def test_failures_at_start_are_in_the_index_and_others_are_served(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "broken", 1, "fail")
    add_version(tmp_path, "good", 1)
    add_config(tmp_path, "odd", "batch_input {}")
    add_version(tmp_path, "odd", 1)
    (tmp_path / "empty").mkdir()
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert manager.started
    assert not manager.all_ready
    assert await states(manager) == {
        ("broken", "1"): "UNAVAILABLE",
        ("empty", ""): "UNAVAILABLE",
        ("good", "1"): "READY",
        ("odd", "1"): "UNAVAILABLE",
    }
    assert await reason(manager, "broken", "1") == "cannot open model.sim: told to fail"
    assert "config.pbtxt:1: batch_input" in await reason(manager, "odd", "1")
    assert "expected a directory like empty/1" in await reason(manager, "empty", "")
    assert engine.published["broken"] == {}
    assert "told to fail" in engine.reasons["broken"]
    assert [entry.name for entry in await manager.index(ready_only=True)] == ["good"]


async def test_version_policy_decides_what_is_loaded(engine: FakeEngine, tmp_path: Path) -> None:
    for version in (1, 2, 3, 4):
        add_version(tmp_path, "m", version, f"v{version}")
    add_config(tmp_path, "m", "version_policy { specific { versions: [1, 3, 9] } }")
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert engine.contents("m") == {1: "v1", 3: "v3"}
    assert await states(manager) == {("m", "1"): "READY", ("m", "3"): "READY", ("m", "9"): "UNAVAILABLE"}
    assert "the repository has no such version" in await reason(manager, "m", "9")
    assert [loaded.version for loaded in manager.versions("m")] == [1, 3]


async def test_version_zero_and_incomplete_versions_are_listed_with_their_reason(
    engine: FakeEngine, tmp_path: Path
) -> None:
    add_version(tmp_path, "m", 0)
    add_version(tmp_path, "m", 1, "v1")
    (add_version(tmp_path, "m", 2, manifest=True) / "model.sim").unlink()
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert engine.contents("m") == {1: "v1"}
    assert await states(manager) == {("m", "0"): "UNAVAILABLE", ("m", "1"): "READY", ("m", "2"): "UNAVAILABLE"}
    assert "from 1 to" in await reason(manager, "m", "0")
    assert "incomplete" in await reason(manager, "m", "2")


async def test_damaged_version_is_refused_and_the_other_served(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "v1", manifest=True)
    (add_version(tmp_path, "m", 2, "v2", manifest=True) / "model.sim").write_text("xx")
    add_config(tmp_path, "m", "version_policy { all {} }")
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert engine.contents("m") == {1: "v1"}
    assert "is damaged" in await reason(manager, "m", "2")


async def test_explicit_mode_starts_with_the_models_named(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "a", 1)
    add_version(tmp_path, "b", 1)
    manager = make_manager(engine, tmp_path, "explicit", ("a", "gone"))
    await manager.start()
    assert manager.names() == ["a"]
    assert await states(manager) == {("a", "1"): "READY", ("b", "1"): "UNAVAILABLE", ("gone", ""): "UNAVAILABLE"}
    assert await reason(manager, "b", "1") == "not loaded"
    assert "not in the repository" in await reason(manager, "gone", "")
    everything = make_manager(FakeEngine(), tmp_path, "explicit", ("*",))
    await everything.start()
    assert everything.names() == ["a", "b"]


async def test_missing_repository_stops_the_start(engine: FakeEngine, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot read model repository"):
        await make_manager(engine, tmp_path / "gone").start()


# ---- explicit ----


async def test_new_version_is_loaded_beside_the_old_one_and_swapped_in_one_step(
    engine: FakeEngine, tmp_path: Path
) -> None:
    add_version(tmp_path, "m", 1, "v1")
    manager = make_manager(engine, tmp_path, "explicit", ("m",))
    await manager.start()
    old = engine.published["m"][1]
    old.may_drain.clear()
    add_version(tmp_path, "m", 2, "block")
    loading = asyncio.create_task(manager.load("m"))
    await until(lambda: engine.blocked.acquire(blocking=False))
    assert engine.contents("m") == {1: "v1"}
    assert await states(manager) == {("m", "1"): "READY", ("m", "2"): "LOADING"}
    engine.release()
    await loading  # does not wait for the old version's requests
    assert engine.publications == [("m", [1]), ("m", [2])]
    assert await states(manager) == {("m", "1"): "UNLOADING", ("m", "2"): "READY"}
    assert not old.drained.is_set()
    old.may_drain.set()
    await until(old.drained.is_set)

    async def gone() -> bool:
        return await states(manager) == {("m", "2"): "READY"}

    await until(gone)


async def test_failed_load_keeps_the_old_version_and_says_why(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "v1")
    manager = make_manager(engine, tmp_path, "explicit", ("m",))
    await manager.start()
    add_version(tmp_path, "m", 2, "fail")
    with pytest.raises(RepositoryError, match="version 2: cannot open") as error:
        await manager.load("m")
    assert error.value.code is grpc.StatusCode.INTERNAL
    assert engine.contents("m") == {1: "v1"}
    assert await states(manager) == {("m", "1"): "READY", ("m", "2"): "UNAVAILABLE"}
    assert not manager.all_ready
    add_version(tmp_path, "m", 2, "mended")
    await manager.load("m")
    assert engine.contents("m") == {2: "mended"}
    assert manager.all_ready


async def test_failed_reload_of_the_same_version_keeps_it(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "v1")
    manager = make_manager(engine, tmp_path, "explicit", ("m",))
    await manager.start()
    add_config(tmp_path, "m", "nonsense: 1")
    with pytest.raises(RepositoryError, match="nonsense") as error:
        await manager.load("m")
    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert engine.contents("m") == {1: "v1"}
    assert await states(manager) == {("m", "1"): "READY"}
    assert "nonsense" in await reason(manager, "m", "1")
    assert not engine.published["m"][1].drained.is_set()


async def test_load_of_an_unchanged_model_changes_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    manager = make_manager(engine, tmp_path, "explicit", ("m",))
    await manager.start()
    servable = engine.published["m"][1]
    await manager.load("m")
    assert engine.published["m"][1] is servable
    assert not servable.drained.is_set()


async def test_change_of_the_policy_alone_reloads_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    add_version(tmp_path, "m", 2)
    add_config(tmp_path, "m", "max_batch_size: 2")
    manager = make_manager(engine, tmp_path, "explicit", ("m",))
    await manager.start()
    servable = engine.published["m"][2]
    add_config(tmp_path, "m", "max_batch_size: 2 version_policy { all {} }")
    await manager.load("m")
    assert sorted(engine.published["m"]) == [1, 2]
    assert engine.published["m"][2] is servable
    assert manager.find("m", "2").config.version_policy.WhichOneof("policy_choice") == "all"


async def test_config_override_lasts_until_the_next_load(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1)
    add_config(tmp_path, "m", "max_batch_size: 2")
    manager = make_manager(engine, tmp_path, "explicit")
    await manager.start()
    await manager.load("m", '{"max_batch_size": 16, "dynamic_batching": {}}')
    config = manager.find("m").config
    assert config.max_batch_size == 16
    assert config.HasField("dynamic_batching")
    await manager.load("m")
    assert manager.find("m").config.max_batch_size == 2
    with pytest.raises(RepositoryError, match="expected a JSON object"):
        await manager.load("m", "3")
    assert manager.find("m").config.max_batch_size == 2


async def test_unload_waits_for_admitted_requests_and_may_be_repeated(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "v1")
    changes = Changes()
    manager = make_manager(engine, tmp_path, "explicit", ("m",), changes)
    await manager.start()
    servable = engine.published["m"][1]
    servable.may_drain.clear()
    unloading = asyncio.create_task(manager.unload("m"))
    await until(lambda: engine.published["m"] == {})
    assert await states(manager) == {("m", "1"): "UNLOADING"}
    assert not unloading.done()
    servable.may_drain.set()
    await unloading
    assert servable.drained.is_set()
    assert await states(manager) == {("m", "1"): "UNAVAILABLE"}
    assert changes.seen == [("m", True), ("m", False)]
    with pytest.raises(RepositoryError, match="unloaded on request") as error:
        manager.find("m")
    assert error.value.code is grpc.StatusCode.UNAVAILABLE
    assert manager.all_ready  # nothing that is wanted is missing
    await manager.unload("m")
    await manager.load("m")
    assert engine.contents("m") == {1: "v1"}


async def test_change_goes_on_when_its_caller_is_cancelled(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "m", 1, "block")
    manager = make_manager(engine, tmp_path, "explicit")
    await manager.start()
    loading = asyncio.create_task(manager.load("m"))
    await until(lambda: engine.blocked.acquire(blocking=False))
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    engine.release()
    await until(lambda: manager.names() == ["m"])


async def test_unknown_models_are_not_found(engine: FakeEngine, tmp_path: Path) -> None:
    manager = make_manager(engine, tmp_path, "explicit")
    await manager.start()
    for change in (manager.load, manager.unload):
        with pytest.raises(RepositoryError) as error:
            await change("nope")
        assert error.value.code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(RepositoryError) as error:
        manager.find("nope")
    assert error.value.code is grpc.StatusCode.NOT_FOUND
    assert await manager.index() == []


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_load_and_unload_requests_are_refused_in_other_modes(
    engine: FakeEngine, tmp_path: Path, mode: str
) -> None:
    add_version(tmp_path, "m", 1)
    manager = make_manager(engine, tmp_path, mode)
    await manager.start()
    for change in (manager.load, manager.unload):
        with pytest.raises(RepositoryError, match="--model-control-mode explicit") as error:
            await change("m")
        assert error.value.code is grpc.StatusCode.UNAVAILABLE
    assert manager.names() == ["m"]


@pytest.mark.parametrize(
    ("version", "code"),
    [("9", grpc.StatusCode.NOT_FOUND), ("x", grpc.StatusCode.INVALID_ARGUMENT), ("2", grpc.StatusCode.UNAVAILABLE)],
)
async def test_look_up_of_a_version_that_does_not_serve(
    engine: FakeEngine, tmp_path: Path, version: str, code: grpc.StatusCode
) -> None:
    add_version(tmp_path, "m", 1)
    add_version(tmp_path, "m", 2, "fail")
    add_config(tmp_path, "m", "version_policy { all {} }")
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert manager.find("m", "1").version == 1
    with pytest.raises(RepositoryError) as error:
        manager.find("m", version)
    assert error.value.code is code


# ---- concurrency ----


async def test_models_load_beside_each_other_and_changes_of_one_model_in_turn(
    engine: FakeEngine, tmp_path: Path
) -> None:
    add_version(tmp_path, "slow", 1, "block")
    add_version(tmp_path, "quick", 1, "quick")
    manager = make_manager(engine, tmp_path, "explicit")
    await manager.start()
    first = asyncio.create_task(manager.load("slow"))
    await until(lambda: engine.blocked.acquire(blocking=False))
    second = asyncio.create_task(manager.unload("slow"))
    await manager.load("quick")
    assert engine.contents("quick") == {1: "quick"}
    assert not first.done()
    assert not second.done()
    engine.release()
    await asyncio.gather(first, second)
    assert engine.contents("slow") == {}
    assert [served for name, served in engine.publications if name == "slow"] == [[1], []]


async def test_close_drains_everything(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "a", 1)
    add_version(tmp_path, "b", 1)
    manager = make_manager(engine, tmp_path)
    await manager.start()
    servables = [engine.published[name][1] for name in "ab"]
    await manager.close()
    assert all(servable.drained.is_set() for servable in servables)
    assert engine.published == {"a": {}, "b": {}}
    assert "shutting down" in engine.reasons["a"]
