# SPDX-License-Identifier: Apache-2.0
"""What makes a version what it is, and whether the repository already has a version made of the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from training.catalogue import SCRIPTS, Script
from training.publish.manifest import is_whole
from training.publish.model_card import CARD_FILE, Origin
from training.publish.publisher import latest_version

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """What every training script takes. `quick` trains on less, for tests; the metrics are then lower."""

    repository: Path
    seed: int = 0
    quick: bool = False


class MissingPackageError(Exception):
    """A package that a script needs is not installed."""


def origin_of(script: Script, options: Options) -> Origin:
    """The origin that a version published now would have. Raises MissingPackageError."""
    return Origin(
        script=f"training.{script.name}",
        source_sha256=_source_digest(script),
        packages={name: package_version(name) for name in script.packages},
        options={"seed": options.seed, "quick": options.quick},
    )


def is_published(script: Script, options: Options) -> bool:
    """Whether the newest version of each of the script's models is whole and of the origin it would have now."""
    wanted = asdict(origin_of(script, options))
    return all(_published_origin(options.repository, model) == wanted for model in script.models)


def package_version(name: str) -> str:
    """The installed version of a distribution. Raises MissingPackageError."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(f"the Python package {name} is not installed; `make train` installs it") from error


def stated_licence(name: str) -> str:
    """The licence that an installed distribution states. Raises MissingPackageError."""
    version = package_version(name)
    metadata = importlib.metadata.metadata(name)
    stated = [metadata[key] for key in ("License-Expression", "License") if key in metadata]
    return f"{stated[0] if stated else 'not stated'} (package {name} {version})"


def _published_origin(repository: Path, model: str) -> object:
    version = latest_version(repository, model)
    if version is None or not is_whole(version):
        return None
    try:
        return json.loads((version / CARD_FILE).read_bytes())["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _source_digest(script: Script) -> str:
    """One digest of the script and of everything that the scripts share."""
    others = {f"{name}.py" for name in SCRIPTS if name != script.name}
    digest = hashlib.sha256()
    for path in sorted(_HERE.rglob("*.py")):
        name = path.relative_to(_HERE).as_posix()
        if name not in others:
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
