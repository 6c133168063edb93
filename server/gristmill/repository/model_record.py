# SPDX-License-Identifier: Apache-2.0
"""What the manager remembers of one model: what serves, what does not and why, and what was last applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import grpc
from gristmill_protos.model_config_pb2 import ModelConfig, ModelVersionPolicy

from gristmill.repository.config_source import ConfigSource, parse_text
from gristmill.repository.ensembles import Interface, StepModel
from gristmill.repository.errors import ConfigError, RepositoryError
from gristmill.repository.layout import Listing, ModelDirectory, VersionDirectory
from gristmill.repository.loader import LoadedVersion


class VersionState(StrEnum):
    """The states of the repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True)
class IndexEntry:
    """One line of the index. `version` is "" for a model of which no version is known, `backend` "" if not loaded.

    A READY version has a reason when a newer state of it, or of its model, could not be loaded.
    """

    name: str
    version: str
    state: VersionState
    reason: str = ""
    backend: str = ""

    @property
    def ready(self) -> bool:
        """Whether requests reach this version."""
        return self.state is VersionState.READY

    @property
    def sort_key(self) -> tuple[str, int]:
        """By name, then by number."""
        return self.name, int(self.version or 0)


@dataclass(frozen=True)
class ServingKey:
    """What a version was loaded from. Equal keys mean that loading again would change nothing."""

    listing: Listing
    config: bytes
    given: tuple[bool, bool]

    @staticmethod
    def of(version: VersionDirectory, source: ConfigSource) -> ServingKey:
        """The version policy is left out: it decides which versions are loaded, not how."""
        config = ModelConfig()
        config.CopyFrom(source.message)
        config.ClearField("version_policy")
        return ServingKey(
            version.listing, config.SerializeToString(deterministic=True), (source.given, source.batch_size_given)
        )


@dataclass(frozen=True)
class Serving:
    """A published version."""

    loaded: LoadedVersion
    key: ServingKey


@dataclass
class ModelRecord:
    """Mutable state of one model; belongs to the event loop, and is changed under `lock` only."""

    name: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    serving: dict[int, Serving] = field(default_factory=dict)
    unloading: list[LoadedVersion] = field(default_factory=list)
    drains: set[asyncio.Future[None]] = field(default_factory=set)
    applied: ModelDirectory | None = None
    override: ConfigSource | None = None  # stands for config.pbtxt until the next load
    needs: list[StepModel] = field(default_factory=list)  # of an ensemble
    # Ensembles that this model was loaded for, when nobody had asked for it itself.
    loaded_for: set[str] = field(default_factory=set)
    queued: bool = False
    reason: str = ""
    wanted: bool = False
    removed: bool = False
    failed: bool = False
    # States of versions by their directory's name, for those that do not serve or whose reload has failed.
    _states: dict[str, tuple[VersionState, str]] = field(default_factory=dict)

    @staticmethod
    def unloaded(directory: ModelDirectory) -> ModelRecord:
        """A record of a model that nobody asked for yet."""
        record = ModelRecord(directory.name)
        record.begin(directory)
        record.fail("not loaded")
        return record

    @property
    def busy(self) -> bool:
        """Whether a change is under way or about to be."""
        return self.queued or self.lock.locked()

    @property
    def healthy(self) -> bool:
        """Whether all is as wanted."""
        return not self.wanted or (bool(self.serving) and not self.failed)

    def begin(self, directory: ModelDirectory) -> None:
        """Forget the outcome of the last change and note what is wrong with the directory itself."""
        self.applied, self.reason, self.failed = directory, "", False
        self._states = {name: (VersionState.UNAVAILABLE, reason) for name, reason in directory.ignored.items()}
        for number, version in directory.versions.items():
            if version.problem is not None:
                self._states[str(number)] = VersionState.UNAVAILABLE, version.problem

    def loading(self, number: int) -> None:
        """A load of this version begins."""
        self._states[str(number)] = VersionState.LOADING, ""

    def unavailable(self, number: int, reason: str) -> None:
        """A load of this version has failed."""
        self._states[str(number)] = VersionState.UNAVAILABLE, reason
        self.failed = True

    def fail(self, reason: str) -> None:
        """Nothing of the applied directory can be loaded."""
        self.reason, self.failed = reason, True
        for number in self.applied.versions if self.applied else ():
            self._states.setdefault(str(number), (VersionState.UNAVAILABLE, reason))

    def note_missing(self, missing: Collection[int]) -> RepositoryError | None:
        """Versions that the policy names and that cannot be loaded; the first one as an error."""
        for number in missing:
            _, problem = self._states.get(str(number), (None, "the repository has no such version"))
            self.unavailable(number, f"version_policy asks for version {number}: {problem}")
        if not missing:
            return None
        return RepositoryError(grpc.StatusCode.FAILED_PRECONDITION, self._states[str(min(missing))][1])

    def allow_empty_versions(self) -> None:
        """Think nothing of versions without files, which an ensemble's may be."""
        for number, version in (self.applied.versions if self.applied else {}).items():
            if not version.listing:
                self._states.pop(str(number), None)

    def explain_no_version(self) -> str:
        """Why there is nothing to choose from."""
        reasons = [reason for _, reason in self._states.values() if reason]
        if reasons:
            return "no version can be served: " + "; ".join(reasons)
        return f"no version found; expected a directory like {self.name}/1 with the model file in it"

    def is_usable(self, version: VersionDirectory) -> bool:
        """Whether nothing is wrong with a version as it lies there."""
        return str(version.version) not in self._states

    def is_current(self, number: int, key: ServingKey, steps: Mapping[StepModel, Interface | RepositoryError]) -> bool:
        """Whether the version is served from exactly this."""
        return number in self.serving and self.serving[number].key == key and self.serving[number].loaded.steps == steps

    def interfaces(self) -> dict[int, Interface]:
        """What each version that is served takes and makes."""
        return {number: Interface.of(serving.loaded.config) for number, serving in self.serving.items()}

    def drop_outdated(self, interface: Callable[[StepModel], Interface | RepositoryError]) -> list[LoadedVersion]:
        """Let go of versions of an ensemble whose models are not there any more as they were. Returns those."""
        outdated = [
            number
            for number, serving in self.serving.items()
            if any(interface(step) != found for step, found in serving.loaded.steps.items())
        ]
        return [self.serving.pop(number).loaded for number in outdated]

    def replace(
        self, loaded: Mapping[int, tuple[LoadedVersion, ServingKey]], keep: Collection[int] | None
    ) -> list[LoadedVersion]:
        """Take in what was loaded and let go of what is not in `keep` (None: of nothing). Returns what has to go."""
        dropped = []
        for number, (version, key) in loaded.items():
            if number in self.serving:
                dropped.append(self.serving[number].loaded)
            self.serving[number] = Serving(version, key)
            self._states.pop(str(number), None)
        for number in [number for number in self.serving if keep is not None and number not in keep]:
            dropped.append(self.serving.pop(number).loaded)
        return dropped

    def set_policy(self, policy: ModelVersionPolicy) -> None:
        """Show the policy as it is now in the configurations of versions that were loaded under another."""
        if policy.WhichOneof("policy_choice") is None:
            policy = ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=1))
        for number, serving in self.serving.items():
            config = ModelConfig()
            config.CopyFrom(serving.loaded.config)
            config.version_policy.CopyFrom(policy)
            self.serving[number] = replace(serving, loaded=replace(serving.loaded, config=config))

    def clear(self, reason: str) -> list[LoadedVersion]:
        """Serve nothing any more. Returns what has to go."""
        dropped = [serving.loaded for serving in self.serving.values()]
        self._states |= {str(number): (VersionState.UNAVAILABLE, reason) for number in self.serving}
        self.serving, self.applied, self.reason, self.failed = {}, None, reason, False
        return dropped

    def suspend(self, reason: str) -> list[LoadedVersion]:
        """Serve nothing until what is missing is there again. Returns what has to go."""
        applied = self.applied
        dropped = self.clear(reason)
        self.applied, self.failed = applied, True
        return dropped

    def find(self, version: str) -> LoadedVersion:
        """As ModelManager.find."""
        if version and not (version.isascii() and version.isdecimal()):
            raise RepositoryError(
                grpc.StatusCode.INVALID_ARGUMENT, f"model '{self.name}': expected a version number, got '{version}'"
            )
        if not self.serving:
            reasons = [f"version {number}: {reason}" for number, (_, reason) in self._states.items() if reason]
            reason = self.reason or "; ".join(reasons) or "it is being loaded"
            raise RepositoryError(grpc.StatusCode.UNAVAILABLE, f"model '{self.name}' is not ready: {reason}")
        number = int(version) if version else max(self.serving)
        if number in self.serving:
            return self.serving[number].loaded
        if version in self._states:
            state, reason = self._states[version]
            raise RepositoryError(
                grpc.StatusCode.UNAVAILABLE,
                f"version {version} of model '{self.name}' is not ready: {reason or state.lower()}",
            )
        ready = ", ".join(map(str, sorted(self.serving)))
        raise RepositoryError(
            grpc.StatusCode.NOT_FOUND, f"model '{self.name}' has no version {version}; it serves {ready}"
        )

    def index(self) -> list[IndexEntry]:
        """One entry per version known, or one with the reason for none."""
        entries: dict[str, IndexEntry] = {}
        for version, (state, reason) in self._states.items():
            entries[version] = IndexEntry(self.name, version, state, reason)
        for loaded in self.unloading:
            known = entries.get(str(loaded.version))
            if known is None or known.state is not VersionState.LOADING:
                entries[str(loaded.version)] = IndexEntry(
                    self.name, str(loaded.version), VersionState.UNLOADING, self.reason, loaded.backend
                )
        for number, serving in self.serving.items():
            _, reason = self._states.get(str(number), (None, self.reason))
            entries[str(number)] = IndexEntry(
                self.name, str(number), VersionState.READY, reason, serving.loaded.backend
            )
        if not entries:
            state = VersionState.UNAVAILABLE if self.reason else VersionState.LOADING
            return [IndexEntry(self.name, "", state, self.reason)]
        return list(entries.values())


def read_source(directory: ModelDirectory) -> ConfigSource:
    """Read a model's config.pbtxt. Raises ConfigError; OSError if the file vanishes."""
    path = directory.config_path
    if path is None:
        return ConfigSource.absent(directory.name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    return parse_text(text, str(path), directory.name)


def settle(
    current: ModelDirectory, before: ModelDirectory | None, applied: ModelDirectory | None
) -> ModelDirectory | None:
    """What may be acted on of a directory that somebody may still be copying into; None: nothing yet.

    What a manifest covers is whole. Anything else has to look the same in two scans; until then the version counts as
    it did when it was applied, or not at all.
    """
    if current.config and (before is None or before.config != current.config):
        return None
    versions: dict[int, VersionDirectory] = {}
    for number, version in current.versions.items():
        earlier = before.versions.get(number) if before else None
        if version.manifest is not None or (earlier is not None and earlier.listing == version.listing):
            versions[number] = version
        elif applied is not None and number in applied.versions:
            versions[number] = applied.versions[number]
    if not versions and current.versions:
        return None
    return replace(current, versions=versions)
