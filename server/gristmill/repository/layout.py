# SPDX-License-Identifier: Apache-2.0
"""What is on disk: models and their versions, complete or not.

    <repository>/<model>/config.pbtxt            optional
    <repository>/<model>/<version>/model.onnx    and whatever else belongs to the version
    <repository>/<model>/<version>/manifest.json {"format": 1, "files": {"model.onnx": {"sha256": hex, "bytes": n}}}

Nothing here interprets a model or its configuration. All functions block on the file system and are thread-safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import grpc

from gristmill.repository.errors import RepositoryError

CONFIG_FILE = "config.pbtxt"
MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1
MAX_VERSION = 2**63 - 1

#: (relative path, bytes, mtime in ns) of each file of a directory, sorted. Equal listings mean: nothing has changed.
Listing = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class ManifestEntry:
    """What the publisher says of one file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class VersionDirectory:
    """One version on disk. `problem` is None when it may be loaded, otherwise why not."""

    version: int
    path: Path
    listing: Listing
    manifest: Mapping[str, ManifestEntry] | None
    problem: str | None = None


@dataclass(frozen=True)
class ModelDirectory:
    """One model on disk. `config` lists config.pbtxt alone, and is empty when there is none.

    `ignored` explains directories that look like versions but can never be one. `problem` concerns the whole model.
    """

    name: str
    path: Path
    config: Listing
    versions: Mapping[int, VersionDirectory]
    ignored: Mapping[str, str]
    problem: str | None = None

    @property
    def config_path(self) -> Path | None:
        """The configuration file, if there is one."""
        return self.path / CONFIG_FILE if self.config else None


def scan(repositories: Sequence[Path]) -> dict[str, ModelDirectory]:
    """Read every model of every repository, by name.

    A model that two repositories have gets a `problem`, since neither can be preferred. Raises RepositoryError
    (UNAVAILABLE) if a repository itself cannot be read, so that a lost mount is not taken for deleted models.
    """
    names: set[str] = set()
    for repository in repositories:
        try:
            names |= {entry.name for entry in os.scandir(repository) if entry.is_dir()}
        except OSError as error:
            raise RepositoryError(
                grpc.StatusCode.UNAVAILABLE, f"cannot read model repository {repository}: {error.strerror}"
            ) from error
    return {name: model for name in sorted(names) if (model := find_model(repositories, name)) is not None}


def find_model(repositories: Sequence[Path], name: str) -> ModelDirectory | None:
    """Read one model, or None if no repository has it."""
    if not _visible(name) or "/" in name:
        return None
    found = [model for repository in repositories if (model := read_model(repository / name)) is not None]
    if len(found) > 1:
        problem = f"model '{name}' is in two repositories, {found[0].path} and {found[1].path}; remove one"
        return ModelDirectory(name, found[0].path, (), {}, {}, problem)
    return found[0] if found else None


def read_model(path: Path) -> ModelDirectory | None:
    """Read one model's directory; None if it is not (or no longer) one."""
    versions: dict[int, VersionDirectory] = {}
    ignored: dict[str, str] = {}
    try:
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name.isdecimal())
    except OSError:
        return None
    for name in names:
        if not re.fullmatch(r"[1-9][0-9]*", name) or int(name) > MAX_VERSION:
            ignored[name] = (
                f"directory '{name}' of model '{path.name}' is no version: expected an integer from 1 to {MAX_VERSION} "
                "without leading zeros"
            )
            continue
        versions[int(name)] = _read_version(path / name)
    return ModelDirectory(path.name, path, _list_file(path / CONFIG_FILE), versions, ignored)


def verify(version: VersionDirectory) -> None:
    """Compare the content of every file with the manifest; nothing to do without one.

    Raises RepositoryError (DATA_LOSS) that names the first file that differs.
    """
    for name, entry in (version.manifest or {}).items():
        with (version.path / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != entry.sha256:
            raise RepositoryError(
                grpc.StatusCode.DATA_LOSS,
                f"{version.path / name} is damaged: {MANIFEST_FILE} expects sha256 {entry.sha256}, the file has "
                f"{actual}; publish the version again under a new number",
            )


def _visible(name: str) -> bool:
    return bool(name) and not name.startswith(".")


def _read_version(path: Path) -> VersionDirectory:
    version = int(path.name)
    listing = _list_directory(path)
    sizes = {name: size for name, size, _ in listing}
    if MANIFEST_FILE not in sizes:
        problem = None if sizes else f"version {version} has no files"
        return VersionDirectory(version, path, listing, None, problem)
    try:
        manifest = _parse_manifest((path / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        return VersionDirectory(version, path, listing, None, f"{path / MANIFEST_FILE}: {error}")
    return VersionDirectory(version, path, listing, manifest, _compare_sizes(version, manifest, sizes))


def _compare_sizes(version: int, manifest: Mapping[str, ManifestEntry], sizes: Mapping[str, int]) -> str | None:
    for name, entry in manifest.items():
        if name not in sizes:
            return f"version {version} is incomplete: {MANIFEST_FILE} lists '{name}', which is not there"
        if sizes[name] != entry.size_bytes:
            return (
                f"version {version} is incomplete: {MANIFEST_FILE} lists '{name}' with {entry.size_bytes} bytes, "
                f"it has {sizes[name]}"
            )
    return None


def _parse_manifest(data: bytes) -> dict[str, ManifestEntry]:
    """Raises ValueError that says what is wrong."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != MANIFEST_FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ValueError(f'expected an object with "format": {MANIFEST_FORMAT}, got {found!r}')
    files = document.get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError('expected "files" to name at least one file')
    return {name: _parse_entry(name, entry) for name, entry in files.items()}


def _parse_entry(name: str, entry: object) -> ManifestEntry:
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or str(pure) != name:
        raise ValueError(f"file name '{name}' must be a plain path inside the version's directory")
    sha256 = entry.get("sha256") if isinstance(entry, dict) else None
    size = entry.get("bytes") if isinstance(entry, dict) else None
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"file '{name}': expected \"sha256\" with 64 lower-case hexadecimal digits, got {sha256!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"file '{name}': expected \"bytes\" with a size, got {size!r}")
    return ManifestEntry(sha256, size)


def _list_directory(path: Path) -> Listing:
    """Every file below `path` that is not hidden. What disappears meanwhile is left out."""
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if _visible(name)]
        for name in filter(_visible, names):
            file = Path(folder, name)
            found += [(file.relative_to(path).as_posix(), size, mtime) for _, size, mtime in _list_file(file)]
    return tuple(sorted(found))


def _list_file(path: Path) -> Listing:
    try:
        status = path.stat()
    except OSError:
        return ()
    return ((path.name, status.st_size, status.st_mtime_ns),) if path.is_file() else ()
