"""Things to be done a little later, which can all be called off together.

Decides nothing but when a thing is done. Must never know what it is, nor for whom.
"""

import asyncio
from collections.abc import Callable


class Timers:
    """What still has to be done, for one owner."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.TimerHandle] = set()

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        """Do it once, in so many seconds, unless it is called off."""

        def run() -> None:
            self._waiting.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(after_s, run)
        self._waiting.add(handle)

    def call_off(self) -> None:
        """None of it will be done."""
        for handle in self._waiting:
            handle.cancel()
