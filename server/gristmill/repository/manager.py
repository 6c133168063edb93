# SPDX-License-Identifier: Apache-2.0
"""ModelManager: makes the engine serve what the repository, the version policies and the operators ask for.

Order of calls: start -> load / unload / poll / look-ups in any order -> close. All methods belong to one event loop;
what blocks runs in threads. Changes are serialised per model and run beside each other across models. A version that
is loaded beside another takes over in one step, after which the old one answers what it admitted and goes. When
something fails, what is being served stays, and the index says why.

An ensemble is changed after the models that it needs, is looked at again whenever one of them has changed, and is not
served without them.

A change goes on to its end even if the call that asked for it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc

from gristmill.repository import layout
from gristmill.repository.config_source import ConfigSource, parse_json
from gristmill.repository.ensembles import Interface, StepModel, is_ensemble, step_models
from gristmill.repository.errors import RepositoryError
from gristmill.repository.load_order import load_order
from gristmill.repository.loader import Engine, LoadedVersion, VersionLoader, as_repository_error
from gristmill.repository.model_record import IndexEntry, ModelRecord, ServingKey, read_source, settle
from gristmill.repository.threads import run_in_thread
from gristmill.repository.version_policy import choose_versions

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class ModelControlMode(StrEnum):
    """Who decides what is served: the repository as it was at start, as it is now, or load and unload requests."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


@dataclass(frozen=True)
class ManagerOptions:
    """`load_models` are loaded at start in explicit mode; "*" is every model. `load_threads` is at least 1."""

    repositories: Sequence[Path]
    mode: ModelControlMode = ModelControlMode.NONE
    load_models: Sequence[str] = ()
    load_threads: int = 4


async def _ignore_change(_name: str, _ready: bool) -> None:
    pass


class ModelManager:
    """See the module's text."""

    def __init__(
        self,
        options: ManagerOptions,
        engine: Engine,
        loader: VersionLoader,
        on_change: Callable[[str, bool], Awaitable[None]] = _ignore_change,
    ) -> None:
        """`on_change` is awaited with a model's name and whether it can take requests, after every change of it."""
        self._options = options
        self._engine = engine
        self._loader = loader
        self._on_change = on_change
        self._models: dict[str, ModelRecord] = {}
        self._scanned: dict[str, layout.ModelDirectory] = {}
        self._loads = ThreadPoolExecutor(options.load_threads, thread_name_prefix="load")
        self._tasks: set[asyncio.Future[Any]] = set()
        self._started = False
        self._closed = False

    @property
    def mode(self) -> ModelControlMode:
        """The mode given at construction."""
        return self._options.mode

    @property
    def started(self) -> bool:
        """Whether every model to be loaded at start has been tried."""
        return self._started

    @property
    def all_ready(self) -> bool:
        """Whether start has ended and everything that should be served is."""
        return self._started and all(record.healthy for record in self._models.values())

    async def start(self) -> None:
        """Load what is to be served from the start. What fails is in the index.

        Raises RepositoryError if a repository cannot be read.
        """
        found = await asyncio.to_thread(layout.scan, self._options.repositories)
        self._scanned = found
        names = list(found)
        if self.mode is ModelControlMode.EXPLICIT and "*" not in self._options.load_models:
            names = list(self._options.load_models)
        for name in names:
            self._record(name).wanted = True
            if name not in found:
                self._record(name).reason = "it was to be loaded at start and is not in the repository"
                _log.error("model %s: %s", name, self._record(name).reason)
        wanted = await self._with_needed({name: found[name] for name in names if name in found}, {})
        changes = await self._begin(wanted, {})
        await asyncio.gather(*changes.values())
        self._started = True

    async def load(self, name: str, config_json: str | None = None) -> None:
        """Load or bring up to date a model, in explicit mode; `config_json` replaces config.pbtxt until the next load.

        With an ensemble come the models that it needs, unless they are served already.
        Raises RepositoryError: UNAVAILABLE in another mode, NOT_FOUND, or what the failed version says.
        """
        self._require_explicit("load")
        source = parse_json(config_json, name) if config_json is not None else None
        directory = await asyncio.to_thread(layout.find_model, self._options.repositories, name)
        if directory is None:
            places = ", ".join(map(str, self._options.repositories))
            raise RepositoryError(grpc.StatusCode.NOT_FOUND, f"model '{name}' is not in the repository ({places})")
        self._record(name).loaded_for.clear()
        overrides = {name: source} if source else {}
        wanted = await self._with_needed({name: directory}, overrides)
        failure = await (await self._begin(wanted, overrides))[name]
        if failure is not None:
            raise failure

    async def unload(self, name: str, with_needed: bool = False) -> None:
        """Stop serving a model, in explicit mode, and wait until the requests that it has admitted are answered.

        `with_needed`: and those that were loaded only because this one, an ensemble, needs them.
        Raises RepositoryError: UNAVAILABLE in another mode, NOT_FOUND.
        """
        self._require_explicit("unload")
        if name not in self._models:
            if await asyncio.to_thread(layout.find_model, self._options.repositories, name) is None:
                raise RepositoryError(grpc.StatusCode.NOT_FOUND, f"there is no model '{name}' to unload")
            return
        await self._run(self._unload(self._models[name], "it was unloaded on request"))
        loaded_for_it = [record for record in self._models.values() if name in record.loaded_for]
        for record in loaded_for_it:
            record.loaded_for.discard(name)
            if with_needed and not record.loaded_for and not self._users(record.name):
                await self.unload(record.name, with_needed=True)

    async def poll(self) -> None:
        """Compare the repository with what is served and wait until the changes are made, in poll mode."""
        await asyncio.gather(*await self._start_poll())

    async def run_polling(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Poll after every `wait()`, for ever. A long load holds up nothing but its own model."""
        while True:
            await wait()
            await self._start_poll()

    async def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """Every version known, by name and version, those on disk that were never loaded included."""
        entries = [entry for record in self._models.values() for entry in record.index()]
        if self.mode is ModelControlMode.EXPLICIT and not ready_only:
            for name, directory in (await asyncio.to_thread(layout.scan, self._options.repositories)).items():
                if name not in self._models:
                    entries += ModelRecord.unloaded(directory).index()
        return sorted((entry for entry in entries if entry.ready or not ready_only), key=lambda entry: entry.sort_key)

    def find(self, name: str, version: str = "") -> LoadedVersion:
        """The version that serves requests for `version`; "" is the newest.

        Raises RepositoryError: INVALID_ARGUMENT, NOT_FOUND, or UNAVAILABLE with the reason.
        """
        record = self._models.get(name)
        if record is None:
            raise RepositoryError(
                grpc.StatusCode.NOT_FOUND, f"unknown model '{name}'; RepositoryIndex lists the models"
            )
        return record.find(version)

    def versions(self, name: str) -> list[LoadedVersion]:
        """The versions of a model that serve requests, ascending; empty if there is none."""
        record = self._models.get(name)
        return [record.serving[version].loaded for version in sorted(record.serving)] if record else []

    def names(self) -> list[str]:
        """The models that serve requests."""
        return sorted(name for name, record in self._models.items() if record.serving)

    async def close(self) -> None:
        """Stop serving every model and wait until all requests that were admitted are answered."""
        self._closed = True
        await asyncio.gather(
            *(self._run(self._unload(record, "the server is shutting down")) for record in self._models.values())
        )
        self._loads.shutdown(wait=False)

    # ---- changes: each runs as a task of its own and takes the model's lock ----

    async def _begin(
        self, directories: Mapping[str, layout.ModelDirectory], overrides: Mapping[str, ConfigSource]
    ) -> dict[str, asyncio.Future[RepositoryError | None]]:
        """Begin to bring models up to date, each after those that it needs. Returns each one's change."""
        sources = {**await asyncio.to_thread(_read_sources, directories.values()), **overrides}
        needs = {
            name: [needed for needed, _ in step_models(sources[name].message)] if name in sources else []
            for name in directories
        }
        order, circles = load_order(needs)
        changes: dict[str, asyncio.Future[RepositoryError | None]] = {}
        for name in order:
            record = self._record(name)
            record.queued, record.override = True, overrides.get(name)
            before = [changes[needed] for needed in needs[name] if needed in changes and name not in circles]
            change = self._reconcile(record, directories[name], sources.get(name), circles.get(name))
            changes[name] = self._run(_after(before, change))
        return changes

    async def _with_needed(
        self, wanted: Mapping[str, layout.ModelDirectory], overrides: Mapping[str, ConfigSource]
    ) -> dict[str, layout.ModelDirectory]:
        """These models and, for ensembles among them, those that they need and that are not served. All are wanted."""
        found = dict(wanted)
        unread = list(wanted.values())
        while unread:
            sources = {**await asyncio.to_thread(_read_sources, unread), **overrides}
            users, unread = unread, []
            for user in users:
                for name, _ in step_models(sources[user.name].message) if user.name in sources else []:
                    record = self._models.get(name)
                    if name in found or (record is not None and record.serving):
                        continue
                    needed = await asyncio.to_thread(layout.find_model, self._options.repositories, name)
                    if needed is not None:
                        found[name] = needed
                        unread.append(needed)
                        self._record(name).loaded_for.add(user.name)
        for name in found:
            self._record(name).wanted = True
        return found

    async def _start_poll(self) -> list[asyncio.Future[RepositoryError | None] | asyncio.Future[None]]:
        try:
            found = await asyncio.to_thread(layout.scan, self._options.repositories)
        except RepositoryError as error:
            _log.warning("%s; what is loaded stays", error.message)
            return []
        before, self._scanned = self._scanned, found
        changed: dict[str, layout.ModelDirectory] = {}
        for name, current in found.items():
            record = self._record(name)
            record.wanted = True
            settled = settle(current, before.get(name), record.applied)
            if settled is not None and settled != record.applied and not record.busy:
                changed[name] = settled
        changes: list[asyncio.Future[RepositoryError | None] | asyncio.Future[None]] = []
        for name in self._models.keys() - found.keys():
            record = self._models[name]
            if not record.busy and not record.removed:
                changes.append(self._run(self._remove(record)))
        return [*changes, *(await self._begin(changed, {})).values()]

    async def _reconcile(
        self,
        record: ModelRecord,
        directory: layout.ModelDirectory,
        source: ConfigSource | None = None,
        circle: str | None = None,
    ) -> RepositoryError | None:
        """Load what `directory` and its policy ask for, swap, and let go of the rest. Returns the first failure."""
        failure: RepositoryError | None
        async with record.lock:
            record.queued = False
            served = record.interfaces()
            record.begin(directory)
            try:
                if self._closed:
                    raise RepositoryError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
                if directory.problem is not None:
                    raise RepositoryError(grpc.StatusCode.FAILED_PRECONDITION, directory.problem)
                if source is None:
                    source = await asyncio.to_thread(read_source, directory)
                if is_ensemble(source.message):
                    record.allow_empty_versions()
                if circle is not None:
                    raise RepositoryError(
                        grpc.StatusCode.FAILED_PRECONDITION, f"ensembles need each other in a circle: {circle}"
                    )
                record.needs = step_models(source.message)
                failure = await self._load_wanted(record, directory, source)
            except Exception as error:
                failure = as_repository_error(error)
                record.fail(failure.message)
            outdated = record.drop_outdated(self._interface)
            if failure is not None:
                _log.error("model %s: %s", record.name, failure.message)
            if outdated or not record.serving:
                self._publish(record, failure.message if failure else "")
            self._drain(record, outdated)
            await self._on_change(record.name, bool(record.serving))
            changed = served != record.interfaces()
        if changed:
            await self._look_again_at_users(record.name)
        return failure

    async def _look_again_at_users(self, name: str) -> None:
        """Bring ensembles up to date that need a model which has changed."""
        users = [user for user in self._users(name) if not self._closed]
        await asyncio.gather(
            *(self._run(self._reconcile(user, user.applied, user.override)) for user in users if user.applied)
        )

    async def _load_wanted(
        self, record: ModelRecord, directory: layout.ModelDirectory, source: ConfigSource
    ) -> RepositoryError | None:
        """Returns the first failure; the versions that did load are served all the same."""
        steps = {step: self._interface(step) for step in record.needs}
        usable = [version for version, found in directory.versions.items() if record.is_usable(found)]
        choice = choose_versions(source.message.version_policy, usable)
        failure = record.note_missing(choice.missing)
        if not choice.wanted:
            raise failure or RepositoryError(grpc.StatusCode.FAILED_PRECONDITION, record.explain_no_version())
        loaded: dict[int, tuple[LoadedVersion, ServingKey]] = {}
        for number in choice.wanted:
            key = ServingKey.of(directory.versions[number], source)
            if record.is_current(number, key, steps):
                continue
            record.loading(number)
            try:
                load = partial(self._loader.load, record.name, directory.versions[number], source)
                if is_ensemble(source.message):
                    load = partial(self._loader.load_ensemble, record.name, directory.versions[number], source, steps)
                version = await asyncio.get_running_loop().run_in_executor(self._loads, load)
                loaded[number] = version, key
            except Exception as error:
                failed = as_repository_error(error)
                record.unavailable(number, failed.message)
                failure = failure or RepositoryError(failed.code, f"version {number}: {failed.message}")
        replaced = record.replace(loaded, keep=None if failure else choice.wanted)
        record.set_policy(source.message.version_policy)
        if record.serving:
            self._publish(record)
        for number in loaded:
            _log.info("model %s: version %d is served by %s", record.name, number, loaded[number][0].backend)
        self._drain(record, replaced)
        return failure

    async def _unload(self, record: ModelRecord, reason: str) -> None:
        await self._suspend_users(record.name, reason)
        async with record.lock:
            record.wanted = False
            dropped = record.clear(reason)
            self._publish(record, reason)
            await self._on_change(record.name, False)
            self._drain(record, dropped)
        await asyncio.gather(*record.drains)

    async def _remove(self, record: ModelRecord) -> None:
        reason = "it was removed from the repository"
        await self._suspend_users(record.name, reason)
        async with record.lock:
            record.removed, record.wanted = True, False
            dropped = record.clear(reason)
            self._engine.forget(record.name)
            await self._on_change(record.name, False)
            _log.info("model %s: removed from the repository", record.name)
            self._drain(record, dropped)
        await asyncio.gather(*record.drains)
        if record.removed:
            self._models.pop(record.name, None)

    async def _suspend_users(self, name: str, reason: str) -> None:
        """Stop ensembles that need a model before it goes, and wait until they need it no more."""
        await asyncio.gather(*(self._suspend(user, f"it needs model '{name}': {reason}") for user in self._users(name)))

    async def _suspend(self, record: ModelRecord, reason: str) -> None:
        await self._suspend_users(record.name, reason)
        async with record.lock:
            if record.serving:
                dropped = record.suspend(reason)
                self._publish(record, reason)
                await self._on_change(record.name, False)
                self._drain(record, dropped)
        await asyncio.gather(*record.drains)

    def _publish(self, record: ModelRecord, reason: str = "") -> None:
        """Have requests reach what is served; with nothing they are told `reason`."""
        servables = [item.loaded.servable for item in record.serving.values()]
        self._engine.publish(record.name, servables, reason="" if servables else reason)

    def _drain(self, record: ModelRecord, versions: Sequence[LoadedVersion]) -> None:
        record.unloading += versions
        for version in versions:
            drain = self._run(self._drain_version(record, version))
            record.drains.add(drain)
            drain.add_done_callback(record.drains.discard)

    async def _drain_version(self, record: ModelRecord, version: LoadedVersion) -> None:
        try:
            await run_in_thread(version.servable.drain, f"drain-{record.name}-{version.version}")
        finally:
            record.unloading = [other for other in record.unloading if other is not version]
        _log.info("model %s: version %d is unloaded", record.name, version.version)

    # ---- helpers ----

    def _interface(self, step: StepModel) -> Interface | RepositoryError:
        try:
            return Interface.of(self.find(*step).config)
        except RepositoryError as error:
            return error

    def _users(self, name: str) -> list[ModelRecord]:
        """The ensembles that need a model and are to be served."""
        return [
            record for record in self._models.values() if record.wanted and name in {need for need, _ in record.needs}
        ]

    def _record(self, name: str) -> ModelRecord:
        record = self._models.setdefault(name, ModelRecord(name))
        record.removed = False
        return record

    def _require_explicit(self, what: str) -> None:
        if self.mode is not ModelControlMode.EXPLICIT:
            raise RepositoryError(
                grpc.StatusCode.UNAVAILABLE,
                f"{what} requests are refused in model control mode '{self.mode}'; "
                "start the server with --model-control-mode explicit",
            )

    def _run(self, change: Coroutine[None, None, _T]) -> asyncio.Future[_T]:
        """Run a change to its end whatever becomes of the caller."""
        task = asyncio.ensure_future(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asyncio.shield(task)


async def _after(others: Sequence[asyncio.Future[RepositoryError | None]], change: Awaitable[_T]) -> _T:
    await asyncio.gather(*others)
    return await change


def _read_sources(directories: Iterable[layout.ModelDirectory]) -> dict[str, ConfigSource]:
    """By model. What cannot be read is left out: the change of the model itself says why."""
    sources: dict[str, ConfigSource] = {}
    for directory in directories:
        with suppress(RepositoryError, OSError):
            sources[directory.name] = read_source(directory)
    return sources
