# SPDX-License-Identifier: Apache-2.0
"""Hold includes and imports to the direction of the architecture (docs/architecture.md).

    python scripts/check_includes.py [ROOT]

Prints one line per violation and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

#: The rooms that each room of csrc may include from, besides itself.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "cuda": {"core"},
    "transport": {"core"},
    "protocol": {"core"},
    "batching": {"core"},
    "simulation": {"core", "batching"},
    "backends": {"core", "cuda"},
    "engine": {"core", "transport", "protocol", "batching"},
    "bindings": {"core", "transport", "engine", "batching", "simulation"},
}

#: Python packages by directory, and the project's packages that each must not import.
FORBIDDEN_IMPORTS = {
    "clients/python": {"gristmill", "training", "bench"},
    "training": {"gristmill", "gristmill_client", "bench"},
    "server/gristmill": {"training", "bench"},
    "server/gristmill_worker": {"gristmill", "gristmill_client", "gristmill_protos", "training", "bench"},
}

# Quotes are for this project's headers alone; angle brackets do not hide one.
_QUOTED = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_ANGLED = re.compile(r"^\s*#\s*include\s*<([^>]+)>", re.MULTILINE)


def include_violations(root: Path) -> Iterator[str]:
    """Includes in csrc that point the wrong way, or to a room that has no rule."""
    source_root = root / "csrc"
    for path in sorted(source_root.rglob("*")):
        if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
            continue
        room = path.relative_to(source_root).parts[0]
        if room not in ROOMS:
            yield f"{path.relative_to(root)}: room '{room}' has no rule in {Path(__file__).name}"
            continue
        text = path.read_text()
        angled = [header for header in _ANGLED.findall(text) if "/" in header and header.split("/")[0] in ROOMS]
        for included in [*_QUOTED.findall(text), *angled]:
            target = included.split("/")[0]
            if target != room and target not in ROOMS[room]:
                allowed = ", ".join(sorted(ROOMS[room] | {room}))
                yield f'{path.relative_to(root)}: includes "{included}"; {room} may include from {allowed}'


def import_violations(root: Path) -> Iterator[str]:
    """Imports between the project's Python packages that must not be."""
    for directory, forbidden in FORBIDDEN_IMPORTS.items():
        for path in sorted((root / directory).rglob("*.py")):
            for package in _imported_packages(ast.parse(path.read_text())):
                if package in forbidden:
                    yield f"{path.relative_to(root)}: imports {package}, which {directory} must not"


def _imported_packages(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def main(root: Path) -> int:
    """Print the violations below `root` and return how many there are, at most 1."""
    violations = [*include_violations(root), *import_violations(root)]
    for violation in violations:
        print(violation)
    return min(len(violations), 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent))
