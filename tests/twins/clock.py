"""A clock for both worlds: it stands still while something is done, and goes on between.

Decides what time a loop believes that it is. Must never know what runs there. Without it the machine would decide
at which deed a look or a round is due, and a busy one differently for either server.
"""

import asyncio
from typing import Final

BEGINS_S: Final = 1_000.0


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on by `step` alone. What waits for a time waits until then, and for sockets as
    ever."""

    def __init__(self) -> None:
        self._now_s = BEGINS_S
        super().__init__()

    def time(self) -> float:
        """Seconds, since some time before its beginning."""
        return self._now_s

    def step(self, seconds: float) -> None:
        """So much later."""
        self._now_s += seconds


def step(seconds: float) -> None:
    """Let the running loop's time go on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    loop.step(seconds)
