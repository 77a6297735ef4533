"""The ways in which a coroutine may end that ought to go on: of itself, by a stray cancellation, by a defect.

Decides nothing. Must never know who is to miss it.
"""

import asyncio


async def returns() -> None:
    """Ends by itself."""
    await asyncio.sleep(0)


async def ends_in_a_cancellation() -> None:
    """Awaits something of its own that was cancelled."""
    waiting = asyncio.get_running_loop().create_future()
    waiting.cancel()
    await waiting


async def fails() -> None:
    """A defect."""
    await asyncio.sleep(0)
    raise ZeroDivisionError
