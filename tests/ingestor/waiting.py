"""Waiting for a state, and not for a time."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as it holds; the caller bounds the time."""
    while not holds():  # noqa: ASYNC110 - what is waited for is on a server, or sets no event
        await asyncio.sleep(0.01)
