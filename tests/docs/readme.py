# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of a Markdown file, and the commands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)")


@dataclass(frozen=True)
class Block:
    """One fenced block. `language` is the word after the fence, empty if there is none; `line` counts from 1."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks in order. Raises ValueError for one that does not end."""
    found = []
    opening: re.Match[str] | None = None
    start = 0
    content: list[str] = []
    for number, line in enumerate(markdown.splitlines(), 1):
        if opening is None:
            opening = _FENCE.match(line)
            start, content = number, []
        elif line.rstrip() == opening["fence"]:
            found.append(Block(opening["language"], "\n".join(content) + "\n", start))
            opening = None
        else:
            content.append(line)
    if opening is not None:
        raise ValueError(f"the fenced block in line {start} does not end")
    return found


def commands(block: Block) -> list[str]:
    """The commands of a `sh` block: one a line, prompts and comments dropped, lines that end in a backslash joined."""
    text = block.text.replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
