# SPDX-License-Identifier: Apache-2.0
"""What `make` installs is pinned to the last package, once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]+\])?(?P<version>.*)")


def pins(lines: Iterable[str]) -> dict[str, str]:
    """Normalised package names and what follows them: '==1.2' or the like."""
    matches = [REQUIREMENT.fullmatch(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", match["name"]).lower(): match["version"] for match in matches if match}


def read_pins(name: str) -> dict[str, str]:
    return pins((ROOT / "requirements" / name).read_text().splitlines())


def test_all_that_pyproject_names_is_constrained_to_the_same_version() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras: dict[str, list[str]] = pyproject["project"]["optional-dependencies"]
    groups = {
        "build": pyproject["build-system"]["requires"] + pyproject["dependency-groups"]["build"],
        "runtime": pyproject["project"]["dependencies"],
        **extras,
    }
    constraints = read_pins("constraints.txt")
    for group, lines in groups.items():
        for name, version in pins(lines).items():
            assert name in constraints, f"{name} of {group} is not in requirements/constraints.txt"
            if version.startswith("=="):
                assert constraints[name] == version, f"{name} of {group} differs in requirements/constraints.txt"


def test_extras_are_pinned() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for extra, lines in pyproject["project"]["optional-dependencies"].items():
        loose = [name for name, version in pins(lines).items() if not version.startswith("==")]
        assert not loose, f"{extra}: {loose} have no version"


def test_packages_installed_without_dependencies_are_pinned_and_in_no_other_list() -> None:
    constraints = read_pins("constraints.txt")
    for name in ("models.txt", "data.txt", "peers.txt"):
        packages = read_pins(name)
        assert packages
        assert all(version.startswith("==") for version in packages.values())
        assert not set(packages) & set(constraints)
