"""Parts of the daemon that run side by side while a context lasts.

Decides that a part which fails takes the others with it, and that none outlives the context. Must never know what a
part does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from ingestor.histogram import Histogram

LOOP_LAG_EVERY_S: Final = 0.1
"""A stall that is shorter may fall between two looks."""


@contextlib.asynccontextmanager
async def background(parts: Mapping[str, Any]) -> AsyncIterator[None]:
    """Run these while the context lasts; a part that fails ends the context with its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part, name=name) for name, part in parts.items()]
            try:
                yield
            finally:
                # Also when one has failed: the group cancels each of the others once, and then waits for ever.
                await _end(tasks)
    except BaseExceptionGroup as failures:
        # One part's failure is the reason; that others failed on the way out is its consequence.
        raise failures.exceptions[0] from failures


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    """Cancel them until they have ended: a library that swallows a cancellation must not keep the daemon alive."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)


async def measure_loop_lag(lag_s: Histogram) -> None:
    """Note how late the event loop wakes a timer, again and again; never returns."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LOOP_LAG_EVERY_S
        await asyncio.sleep(LOOP_LAG_EVERY_S)
        lag_s.observe(max(0.0, loop.time() - due_s))
