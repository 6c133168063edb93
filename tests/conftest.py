# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-repository",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "model_repo",
        help="where the sample models are published (make train); default: model_repo",
    )
