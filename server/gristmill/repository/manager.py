# SPDX-License-Identifier: Apache-2.0
"""ModelManager: makes the engine serve what the repository, the version policies and the operators ask for.

Order of calls: start -> load / unload / poll / look-ups in any order -> close. All methods belong to one event loop;
what blocks runs in threads. Changes are serialised per model and run beside each other across models. A version that
is loaded beside another takes over in one step, after which the old one answers what it admitted and goes. When
something fails, what is being served stays, and the index says why.

A change goes on to its end even if the call that asked for it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import grpc

from gristmill.repository import layout
from gristmill.repository.config_source import ConfigSource, parse_json
from gristmill.repository.errors import RepositoryError
from gristmill.repository.loader import Engine, LoadedVersion, VersionLoader, as_repository_error
from gristmill.repository.model_record import IndexEntry, ModelRecord, ServingKey, read_source, settle
from gristmill.repository.threads import run_in_thread
from gristmill.repository.version_policy import choose_versions

_log = logging.getLogger(__name__)


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
        self._tasks: set[asyncio.Task[None]] = set()
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
        await asyncio.gather(*(self._run(self._start_model(name, found.get(name))) for name in names))
        self._started = True

    async def load(self, name: str, config_json: str | None = None) -> None:
        """Load or bring up to date a model, in explicit mode; `config_json` replaces config.pbtxt until the next load.

        Raises RepositoryError: UNAVAILABLE in another mode, NOT_FOUND, or what the failed version says.
        """
        self._require_explicit("load")
        source = parse_json(config_json, name) if config_json is not None else None
        directory = await asyncio.to_thread(layout.find_model, self._options.repositories, name)
        if directory is None:
            places = ", ".join(map(str, self._options.repositories))
            raise RepositoryError(grpc.StatusCode.NOT_FOUND, f"model '{name}' is not in the repository ({places})")
        record = self._record(name)
        record.wanted = True
        await self._run(self._reconcile(record, directory, source, raises=True))

    async def unload(self, name: str) -> None:
        """Stop serving a model, in explicit mode, and wait until the requests that it has admitted are answered.

        Raises RepositoryError: UNAVAILABLE in another mode, NOT_FOUND.
        """
        self._require_explicit("unload")
        if name not in self._models:
            if await asyncio.to_thread(layout.find_model, self._options.repositories, name) is None:
                raise RepositoryError(grpc.StatusCode.NOT_FOUND, f"there is no model '{name}' to unload")
            return
        await self._run(self._unload(self._models[name], "it was unloaded on request"))

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

    async def _start_model(self, name: str, directory: layout.ModelDirectory | None) -> None:
        record = self._record(name)
        if directory is None:
            record.reason = "it was to be loaded at start and is not in the repository"
            _log.error("model %s: %s", name, record.reason)
            return
        await self._reconcile(record, directory)

    async def _start_poll(self) -> list[asyncio.Future[None]]:
        try:
            found = await asyncio.to_thread(layout.scan, self._options.repositories)
        except RepositoryError as error:
            _log.warning("%s; what is loaded stays", error.message)
            return []
        before, self._scanned = self._scanned, found
        changes: list[asyncio.Future[None]] = []
        for name, current in found.items():
            record = self._record(name)
            record.wanted = True
            settled = settle(current, before.get(name), record.applied)
            if settled is not None and settled != record.applied and not record.lock.locked():
                changes.append(self._run(self._reconcile(record, settled)))
        for name in self._models.keys() - found.keys():
            record = self._models[name]
            if not record.lock.locked() and not record.removed:
                changes.append(self._run(self._remove(record)))
        return changes

    async def _reconcile(
        self,
        record: ModelRecord,
        directory: layout.ModelDirectory,
        source: ConfigSource | None = None,
        raises: bool = False,
    ) -> None:
        """Load what `directory` and its policy ask for, swap, and let go of the rest. Raises only if told to."""
        async with record.lock:
            record.begin(directory)
            try:
                if self._closed:
                    raise RepositoryError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
                if directory.problem is not None:
                    raise RepositoryError(grpc.StatusCode.FAILED_PRECONDITION, directory.problem)
                if source is None:
                    source = await asyncio.to_thread(read_source, directory)
                failure = await self._load_wanted(record, directory, source)
            except Exception as error:
                failure = as_repository_error(error)
                record.fail(failure.message)
            if failure is not None:
                _log.error("model %s: %s", record.name, failure.message)
                if not record.serving:
                    self._engine.publish(record.name, [], reason=failure.message)
            await self._on_change(record.name, bool(record.serving))
        if failure is not None and raises:
            raise failure

    async def _load_wanted(
        self, record: ModelRecord, directory: layout.ModelDirectory, source: ConfigSource
    ) -> RepositoryError | None:
        """Returns the first failure; the versions that did load are served all the same."""
        usable = [version for version, found in directory.versions.items() if found.problem is None]
        choice = choose_versions(source.message.version_policy, usable)
        failure = record.note_missing(choice.missing)
        if not choice.wanted:
            raise failure or RepositoryError(grpc.StatusCode.FAILED_PRECONDITION, record.explain_no_version())
        loaded: dict[int, tuple[LoadedVersion, ServingKey]] = {}
        for number in choice.wanted:
            key = ServingKey.of(directory.versions[number], source)
            if record.is_current(number, key):
                continue
            record.loading(number)
            try:
                load = partial(self._loader.load, record.name, directory.versions[number], source)
                version = await asyncio.get_running_loop().run_in_executor(self._loads, load)
                loaded[number] = version, key
            except Exception as error:
                failed = as_repository_error(error)
                record.unavailable(number, failed.message)
                failure = failure or RepositoryError(failed.code, f"version {number}: {failed.message}")
        replaced = record.replace(loaded, keep=None if failure else choice.wanted)
        record.set_policy(source.message.version_policy)
        if record.serving:
            self._engine.publish(record.name, [item.loaded.servable for item in record.serving.values()])
        for number in loaded:
            _log.info("model %s: version %d is served by %s", record.name, number, loaded[number][0].config.backend)
        self._drain(record, replaced)
        return failure

    async def _unload(self, record: ModelRecord, reason: str) -> None:
        async with record.lock:
            record.wanted = False
            dropped = record.clear(reason)
            self._engine.publish(record.name, [], reason=reason)
            await self._on_change(record.name, False)
            drains = self._drain(record, dropped)
        await asyncio.gather(*drains)

    async def _remove(self, record: ModelRecord) -> None:
        async with record.lock:
            record.removed, record.wanted = True, False
            dropped = record.clear("it was removed from the repository")
            self._engine.forget(record.name)
            await self._on_change(record.name, False)
            _log.info("model %s: removed from the repository", record.name)
            drains = self._drain(record, dropped)
        await asyncio.gather(*drains)
        if record.removed:
            self._models.pop(record.name, None)

    def _drain(self, record: ModelRecord, versions: Sequence[LoadedVersion]) -> list[asyncio.Future[None]]:
        record.unloading += versions
        return [self._run(self._drain_version(record, version)) for version in versions]

    async def _drain_version(self, record: ModelRecord, version: LoadedVersion) -> None:
        try:
            await run_in_thread(version.servable.drain, f"drain-{record.name}-{version.version}")
        finally:
            record.unloading = [other for other in record.unloading if other is not version]
        _log.info("model %s: version %d is unloaded", record.name, version.version)

    # ---- helpers ----

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

    def _run(self, change: Coroutine[None, None, None]) -> asyncio.Future[None]:
        """Run a change to its end whatever becomes of the caller."""
        task = asyncio.ensure_future(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asyncio.shield(task)
