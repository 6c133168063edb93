# SPDX-License-Identifier: Apache-2.0
"""Run by path, whatever is installed: the package is found where this file is, and nothing else of that place is."""

import importlib.util
import sys
from pathlib import Path


def _load_package(name: str) -> None:
    directory = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        name, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.path.pop(0)  # this directory, whose files are no modules of their own
    _load_package("gristmill_worker")
    from gristmill_worker.worker import main

    main(sys.argv[1:])
