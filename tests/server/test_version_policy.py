# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from google.protobuf import text_format
from gristmill.repository.version_policy import VersionChoice, choose_versions
from gristmill_protos.model_config_pb2 import ModelVersionPolicy
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("policy", "available", "choice"),
    [
        ("", [1, 3, 2], VersionChoice((3,))),
        ("", [], VersionChoice(())),
        ("latest { num_versions: 2 }", [1, 3, 2], VersionChoice((3, 2))),
        ("latest { num_versions: 9 }", [1, 3], VersionChoice((3, 1))),
        ("all {}", [2, 10, 1], VersionChoice((10, 2, 1))),
        ("specific { versions: [1, 3] }", [1, 2, 3], VersionChoice((3, 1))),
        ("specific { versions: [1, 7, 1] }", [1, 2], VersionChoice((1,), (7,))),
        ("specific { versions: [7] }", [], VersionChoice((), (7,))),
    ],
)
def test_choice(policy: str, available: list[int], choice: VersionChoice) -> None:
    assert choose_versions(text_format.Parse(policy, ModelVersionPolicy()), available) == choice


@given(st.sets(st.integers(1, 50)), st.integers(1, 10))
def test_latest_never_leaves_out_a_newer_version(available: set[int], count: int) -> None:
    policy = ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=count))
    wanted = choose_versions(policy, available).wanted
    assert len(wanted) == min(count, len(available))
    assert all(left_out < min(wanted) for left_out in available - set(wanted))
