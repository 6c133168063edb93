# SPDX-License-Identifier: Apache-2.0
"""Publishing: a version becomes visible whole, in one rename, or not at all.

<repository>/<model>/config.pbtxt      optional
<repository>/<model>/<version>/        the model's files, model_card.json, MODEL_CARD.md, expected.npz, manifest.json
<repository>/<model>/.staging-<random> where a version is prepared; hidden from the server, removed when stale
"""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.publish.durable import make_directory, sync_directory, write_file
from training.publish.errors import ConfigConflictError, PublishError, VersionExistsError
from training.publish.manifest import MANIFEST_FILE, build_manifest
from training.publish.model_card import CARD_FILE, RENDERED_CARD_FILE, ModelCard, to_json, to_markdown
from training.publish.parity import Arrays, ParityProof
from training.publish.staging import remove_stale, staging_directory

CONFIG_FILE = "config.pbtxt"
EXAMPLES_FILE = "expected.npz"
MAX_VERSION = 2**63 - 1
_RESERVED = frozenset({CARD_FILE, RENDERED_CARD_FILE, EXAMPLES_FILE, MANIFEST_FILE, CONFIG_FILE})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Examples:
    """A few input rows and what the framework predicts for them, so that a served model can be checked.

    Arrays have the rows first. Strings are numpy arrays of kind "U", which a reader loads without pickle.
    """

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class VersionContents:
    """What a version consists of. `files` maps plain names to bytes, or to the path of a file to copy.

    Every file `model.*` needs a proof of parity, since an unproven model must not be published.
    """

    files: Mapping[str, bytes | Path]
    card: ModelCard
    examples: Examples
    proofs: Sequence[ParityProof]


@dataclass(frozen=True)
class PublishedVersion:
    """A version that is visible in the repository."""

    model: str
    version: int
    path: Path


def publish_version(
    repository: Path,
    model: str,
    contents: VersionContents,
    *,
    version: int | None = None,
    config: str | None = None,
    replace_config: bool = False,
) -> PublishedVersion:
    """Publish a version under the next free number, or under `version`, and the model's config.pbtxt if given.

    Returns when the version is durable. Any number of processes may publish the same model at once. A process killed at
    any moment leaves the version either visible and whole or invisible; what it left is removed by the next publisher.
    Raises VersionExistsError if `version` is taken, ConfigConflictError if the model has another config.pbtxt and
    `replace_config` is not set, PublishError if the contents are not publishable, and OSError from the file system.
    """
    _check(model, contents, version)
    parent = repository / model
    make_directory(parent)
    remove_stale(parent)
    if version is not None and (parent / str(version)).exists():
        raise _version_exists(parent, version)
    if config is not None and not replace_config:
        _check_config(parent / CONFIG_FILE, config)
    with staging_directory(parent) as staging:
        prepared = staging / "version"
        prepared.mkdir()
        _prepare(prepared, contents)
        if config is not None:
            _place_config(staging / CONFIG_FILE, parent / CONFIG_FILE, config, replace_config)
        number = _place_version(prepared, parent, version)
        sync_directory(parent)
    return PublishedVersion(model, number, parent / str(number))


def latest_version(repository: Path, model: str) -> Path | None:
    """The directory of the highest version of a model, if it has one."""
    number = _highest_version(repository / model)
    return repository / model / str(number) if number else None


def _check(model: str, contents: VersionContents, version: int | None) -> None:
    if not _PLAIN_NAME.fullmatch(model):
        raise PublishError(f"model name '{model}': expected letters, digits, '_', '-' and '.', not beginning with '.'")
    if version is not None and not 1 <= version <= MAX_VERSION:
        raise PublishError(f"version {version} of model '{model}': expected an integer from 1 to {MAX_VERSION}")
    for name in contents.files:
        if not _PLAIN_NAME.fullmatch(name) or name in _RESERVED:
            raise PublishError(
                f"file '{name}' of model '{model}': expected a plain file name, other than "
                f"{', '.join(sorted(_RESERVED))}"
            )
    models = {name for name in contents.files if name.startswith("model.")}
    if not models:
        raise PublishError(
            f"model '{model}': expected a file model.onnx, model.pt or the like among {set(contents.files)}"
        )
    unproven = models - {proof.file for proof in contents.proofs}
    if unproven:
        raise PublishError(f"model '{model}': no proof of parity for {', '.join(sorted(unproven))}; see prove_parity")


def _prepare(directory: Path, contents: VersionContents) -> None:
    for name, content in contents.files.items():
        write_file(directory / name, content)
    write_file(directory / CARD_FILE, to_json(contents.card, contents.proofs))
    write_file(directory / RENDERED_CARD_FILE, to_markdown(contents.card, contents.proofs))
    write_file(directory / EXAMPLES_FILE, _pack(contents.examples))
    write_file(directory / MANIFEST_FILE, build_manifest(directory))
    sync_directory(directory)


def _pack(examples: Examples) -> bytes:
    arrays = {f"input.{name}": array for name, array in examples.inputs.items()}
    arrays |= {f"output.{name}": array for name, array in examples.outputs.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise PublishError(f"example array '{name}' holds Python objects; give strings as an array of kind 'U'")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _check_config(path: Path, config: str) -> None:
    try:
        present = path.read_text()
    except FileNotFoundError:
        return
    if present != config:
        raise ConfigConflictError(
            f"{path} is there and differs from the one to publish; remove it, publish without a configuration, or pass "
            "replace_config=True to replace it"
        )


def _place_config(prepared: Path, target: Path, config: str, replace: bool) -> None:
    write_file(prepared, config.encode())
    if replace:
        prepared.replace(target)
        return
    try:
        target.hardlink_to(prepared)  # unlike a rename, never replaces what another publisher has just put there
    except FileExistsError:
        _check_config(target, config)


def _place_version(prepared: Path, parent: Path, version: int | None) -> int:
    """Rename the prepared directory to its number; a number that another publisher took first is passed over."""
    while True:
        number = version or _highest_version(parent) + 1
        if number > MAX_VERSION:
            raise PublishError(f"{parent} has no version number left: {MAX_VERSION} is the highest")
        try:
            prepared.rename(parent / str(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            if version is not None:
                raise _version_exists(parent, version) from error
        else:
            return number


def _highest_version(parent: Path) -> int:
    try:
        names = [path.name for path in parent.iterdir()]
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if re.fullmatch(r"[1-9][0-9]*", name)), default=0)


def _version_exists(parent: Path, version: int) -> VersionExistsError:
    return VersionExistsError(
        f"model '{parent.name}' already has version {version} in {parent.parent}; versions never change, so choose "
        f"another number (the next free one is {_highest_version(parent) + 1})"
    )
