# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from gristmill.repository.config_source import parse_text
from gristmill.repository.errors import ConfigError
from gristmill.repository.rate_limiter import check_rate_limiter, core_resources

GROUP = "instance_group {{ rate_limiter {{ {} }} }}"
RESOURCE = 'resources {{ name: "{}" count: {} }} '


def test_needs_and_weight_are_those_of_the_groups() -> None:
    text = GROUP.format(RESOURCE.format("a", 2) + RESOURCE.format("b", 1) + "priority: 3")
    source = parse_text(text + text, "c", "m")
    check_rate_limiter(source)
    assert core_resources(source.message) == ({"a": 2, "b": 1}, 3)
    assert core_resources(parse_text("", "c", "m").message) == ({}, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GROUP.format(RESOURCE.format("a", 1)) + GROUP.format("priority: 2"), "expected the same as in the first"),
        (GROUP.format(RESOURCE.format("a", 0)), "resource 'a': expected a count of 1 or more, got 0"),
        (GROUP.format(2 * RESOURCE.format("a", 1)), r"expected resources with a name, each once, got \['a', 'a'\]"),
        (GROUP.format(RESOURCE.format("", 1)), "expected resources with a name"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_rate_limiter(parse_text(text, "c", "m"))
