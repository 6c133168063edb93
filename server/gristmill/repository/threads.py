# SPDX-License-Identifier: Apache-2.0
"""A blocking call in a thread that does not hold up the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


async def run_in_thread(function: Callable[[], None], name: str) -> None:
    """Run `function` in a daemon thread of its own and wait for it, passing on its exception.

    For calls that may last for ever: a thread of a pool would be joined when the interpreter ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: BaseException | None = None
        try:
            function()
        except BaseException as error:  # handed to the waiting task
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done
