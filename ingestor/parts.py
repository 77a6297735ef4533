"""Parts of the daemon that run side by side while a context lasts.

Decides that a part which ends, in whichever way, takes the others with it, and that none outlives the context. Must
never know what a part does. No other module starts tasks: `tests/repo/test_tasks.py` sees to it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Final

from ingestor.histogram import Histogram

LOOP_LAG_EVERY_S: Final = 0.1
"""A stall that is shorter may fall between two looks."""


class PartEnded(Exception):
    """A part ended that must not. It did not fail: it returned, or somebody else cancelled it."""

    def __init__(self, name: str, *, was_cancelled: bool) -> None:
        how = "was cancelled, and nobody of ours did that" if was_cancelled else "has ended by itself"
        super().__init__(f"the part {name!r} {how}")


@contextlib.asynccontextmanager
async def background(parts: Mapping[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run these while the context lasts; a part that fails ends the context with its error, and one that ends in
    another way with `PartEnded`: a task group alone would not miss it."""
    is_ending = False

    def ended(task: "asyncio.Task[None]") -> None:
        nonlocal is_ending
        if is_ending:
            return
        is_ending = True
        if task.cancelled() or task.exception() is None:
            group.create_task(_fail(PartEnded(task.get_name(), was_cancelled=task.cancelled())))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part, name=name) for name, part in parts.items()]
            for task in tasks:
                task.add_done_callback(ended)
            try:
                yield
            finally:
                is_ending = True
                # Also when one has failed: the group cancels each of the others once, and then waits for ever.
                await _end(tasks)
    except BaseExceptionGroup as failures:
        # One part's failure is the reason; that others failed on the way out is its consequence.
        raise failures.exceptions[0] from failures


async def together(parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run these side by side; never returns, and raises as `background` does."""
    async with background(parts):
        await rest()


async def rest() -> None:
    """Nothing more is to be done by this part; never returns, since a part that ends is missed."""
    await asyncio.Event().wait()


async def done_before(stop: asyncio.Event, name: str, work: Coroutine[Any, Any, None]) -> bool:
    """Whether this was done before a stop was asked for, which ends it. Raises what it raises, and `PartEnded`."""
    try:
        async with asyncio.TaskGroup() as group:
            working, stopping = group.create_task(work, name=name), group.create_task(_wait_for(stop))
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            is_done = working.done()
            working.cancel()
            stopping.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    if is_done and working.cancelled():
        raise PartEnded(working.get_name(), was_cancelled=True)
    return is_done


async def _wait_for(stop: asyncio.Event) -> None:
    await stop.wait()


async def _fail(error: Exception) -> None:
    raise error


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
