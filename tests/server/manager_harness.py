# SPDX-License-Identifier: Apache-2.0
"""A ModelManager on a fake engine, and what its tests ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gristmill.repository.loader import VersionLoader
from gristmill.repository.manager import ManagerOptions, ModelControlMode, ModelManager

from .fakes import LIMIT_S, FakeEngine, make_options


class Changes:
    """Records what `on_change` is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    async def __call__(self, name: str, ready: bool) -> None:
        self.seen.append((name, ready))


def make_manager(
    engine: FakeEngine, repository: Path, mode: str = "none", load: tuple[str, ...] = (), changes: Any = None
) -> ModelManager:
    options = ManagerOptions([repository], ModelControlMode(mode), load)
    loader = VersionLoader(engine, make_options, default_max_batch_size=64)
    return ModelManager(options, engine, loader, changes or Changes())


async def states(manager: ModelManager) -> dict[tuple[str, str], str]:
    return {(entry.name, entry.version): str(entry.state) for entry in await manager.index()}


async def reason(manager: ModelManager, name: str, version: str) -> str:
    (found,) = [entry.reason for entry in await manager.index() if (entry.name, entry.version) == (name, version)]
    return found


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition that threads bring about."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            met = condition()
            if (await met) if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0)
