# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.training.sample_version import make_contents
from training.publish import VersionContents


@pytest.fixture
def contents() -> VersionContents:
    return make_contents(b"weights")
