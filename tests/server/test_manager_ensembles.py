# SPDX-License-Identifier: Apache-2.0
"""When ensembles are served: after the models that they need, with them as they are, and never without them."""

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


def add_ensemble(repository: Path, name: str, *models: str, version: int = 1) -> None:
    """A chain of models with an input x and an output y of [4]."""
    steps = " ".join(
        f'step {{ model_name: "{model}" input_map {{ key: "x" value: "t{index}" }} '
        f'output_map {{ key: "y" value: "t{index + 1}" }} }}'
        for index, model in enumerate(models)
    )
    add_config(
        repository,
        name,
        f'max_batch_size: 8 input {{ name: "t0" }} output {{ name: "t{len(models)}" }} '
        f"ensemble_scheduling {{ {steps} }}",
    )
    (repository / name / str(version)).mkdir(exist_ok=True)


def add_step_model(repository: Path, name: str, tensors: str = "") -> None:
    add_version(repository, name, 1, f"{name} {tensors}")


def rename_tensors(repository: Path, name: str) -> None:
    """For use as a step: an ensemble's own tensors are t0 and t1, a step's x and y."""
    path = repository / name / "config.pbtxt"
    path.write_text(path.read_text().replace('"t0"', '"x"').replace('"t1"', '"y"'))


async def test_ensembles_are_loaded_after_what_they_need_whatever_their_names(
    engine: FakeEngine, tmp_path: Path
) -> None:
    add_ensemble(tmp_path, "a_top", "inner", "model")
    add_ensemble(tmp_path, "inner", "model")
    rename_tensors(tmp_path, "inner")
    add_step_model(tmp_path, "model")
    changes = Changes()
    manager = make_manager(engine, tmp_path, changes=changes)
    await manager.start()
    assert manager.all_ready
    assert changes.seen == [("model", True), ("inner", True), ("a_top", True)]
    assert engine.contents("a_top") == {1: "inner model"}
    assert manager.find("a_top").backend == "ensemble"
    assert await states(manager) == {("a_top", "1"): "READY", ("inner", "1"): "READY", ("model", "1"): "READY"}


async def test_ensembles_that_need_each_other_say_so(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "a", "b")
    add_ensemble(tmp_path, "b", "a")
    add_ensemble(tmp_path, "itself", "itself")
    add_step_model(tmp_path, "model")
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert manager.names() == ["model"]
    assert "need each other in a circle" in await reason(manager, "a", "1")
    assert "itself -> itself" in await reason(manager, "itself", "1")


async def test_an_ensemble_waits_for_a_model_that_is_missing(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "top", "model")
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    assert "step 1 ('model'): unknown model 'model'" in await reason(manager, "top", "1")
    add_version(tmp_path, "model", 1, manifest=True)
    await manager.poll()
    assert await states(manager) == {("top", "1"): "READY", ("model", "1"): "READY"}
    assert await reason(manager, "top", "1") == ""


async def test_an_ensemble_follows_the_models_that_it_needs(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "top", "model")
    add_version(tmp_path, "model", 1, manifest=True)
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    before = engine.published["top"][1]
    # A version of the same interface: nothing has to be done.
    add_version(tmp_path, "model", 2, manifest=True)
    await manager.poll()
    assert engine.published["top"][1] is before
    # Another shape that still fits, since the ensemble leaves its own to the models.
    add_version(tmp_path, "model", 3, "v3 in:x:FP32:-1,7 out:y:FP32:-1,7", manifest=True)
    await manager.poll()
    assert engine.published["top"][1] is not before
    assert list(manager.find("top").config.input[0].dims) == [7]
    await until(before.drained.is_set)
    # One that does not.
    add_version(tmp_path, "model", 4, "v4 in:z:FP32:-1,7 out:y:FP32:-1,7", manifest=True)
    await manager.poll()
    assert engine.published["top"] == {}
    assert "step 1 ('model') has no input 'x'; it has z" in await reason(manager, "top", "1")
    assert "has no input 'x'" in engine.reasons["top"]


async def test_a_model_that_is_removed_takes_its_ensembles_with_it_in_order(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "top", "model")
    directory = add_version(tmp_path, "model", 1, manifest=True)
    manager = make_manager(engine, tmp_path, "poll")
    await manager.start()
    ensemble, model = engine.published["top"][1], engine.published["model"][1]
    ensemble.may_drain.clear()
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.parent.rmdir()
    polling = asyncio.create_task(manager.poll())
    await until(lambda: engine.published["top"] == {})
    # The requests that the ensemble has admitted still need the model.
    assert engine.contents("model")
    assert not model.drained.is_set()
    ensemble.may_drain.set()
    await polling
    assert model.drained.is_set()
    assert "it needs model 'model': it was removed from the repository" in await reason(manager, "top", "1")
    add_version(tmp_path, "model", 1, manifest=True)
    await manager.poll()
    assert engine.contents("top") == {1: "model"}


async def test_the_end_lets_ensembles_finish_before_their_models(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "top", "model")
    add_step_model(tmp_path, "model")
    manager = make_manager(engine, tmp_path)
    await manager.start()
    ensemble = engine.published["top"][1]
    ensemble.may_drain.clear()
    closing = asyncio.create_task(manager.close())
    await until(lambda: engine.published["top"] == {})
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.contents("model")
    ensemble.may_drain.set()
    await closing
    assert engine.contents("model") == {}


async def test_a_load_request_brings_the_models_and_an_unload_request_may_take_them(
    engine: FakeEngine, tmp_path: Path
) -> None:
    add_ensemble(tmp_path, "top", "inner", "shared")
    add_ensemble(tmp_path, "inner", "model")
    rename_tensors(tmp_path, "inner")
    add_step_model(tmp_path, "model")
    add_step_model(tmp_path, "shared")
    manager = make_manager(engine, tmp_path, "explicit")
    await manager.start()
    await manager.load("shared")
    await manager.load("top")
    assert manager.names() == ["inner", "model", "shared", "top"]
    await manager.unload("top")
    assert manager.names() == ["inner", "model", "shared"]
    await manager.load("top")
    await manager.unload("top", with_needed=True)
    # What was not loaded for it alone stays; it was not loaded for it again since it was there.
    assert manager.names() == ["inner", "model", "shared"]
    await manager.unload("inner", with_needed=True)
    assert manager.names() == ["shared"]
    await manager.load("top")
    await manager.unload("top", with_needed=True)
    assert manager.names() == ["shared"]


async def test_a_failed_load_of_an_ensemble_names_the_step(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "top", "broken")
    add_version(tmp_path, "broken", 1, "fail")
    manager = make_manager(engine, tmp_path, "explicit")
    await manager.start()
    with pytest.raises(
        RepositoryError, match=r"step 1 \('broken'\): model 'broken' is not ready.*told to fail"
    ) as error:
        await manager.load("top")
    assert error.value.code is grpc.StatusCode.UNAVAILABLE


async def test_unloading_a_model_suspends_its_ensembles_until_it_is_back(engine: FakeEngine, tmp_path: Path) -> None:
    add_ensemble(tmp_path, "top", "model")
    add_step_model(tmp_path, "model")
    manager = make_manager(engine, tmp_path, "explicit", ("*",))
    await manager.start()
    await manager.unload("model")
    assert await reason(manager, "top", "1") == "it needs model 'model': it was unloaded on request"
    assert "it needs model 'model'" in engine.reasons["top"]
    await manager.load("model")
    assert manager.names() == ["model", "top"]
    assert manager.all_ready


async def test_a_version_of_an_ordinary_model_still_needs_files(engine: FakeEngine, tmp_path: Path) -> None:
    add_version(tmp_path, "model", 1, "v1")
    (tmp_path / "model" / "2").mkdir()
    manager = make_manager(engine, tmp_path)
    await manager.start()
    assert engine.contents("model") == {1: "v1"}
    assert await reason(manager, "model", "2") == "version 2 has no files"
