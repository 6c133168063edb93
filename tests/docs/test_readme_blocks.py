# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.docs.readme import Block, blocks, commands


def test_blocks_come_in_order_with_language_text_and_line() -> None:
    markdown = (
        "Title\n\n```sh\nmake serve\n```\n\ntext ```not a block```\n\n~~~\n```\n~~~\n```python\nx = 1\n\ny = 2\n```\n"
    )
    assert blocks(markdown) == [
        Block("sh", "make serve\n", 3),
        Block("", "```\n", 9),
        Block("python", "x = 1\n\ny = 2\n", 12),
    ]


def test_a_block_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2 does not end"):
        blocks("text\n```sh\nmake serve\n")


def test_commands_are_one_a_line() -> None:
    block = Block("sh", "# first\nmake serve\n\n$ gristmill infer magika \\\n    --random\n  make test # all\n", 1)
    assert commands(block) == ["make serve", "gristmill infer magika      --random", "make test # all"]
