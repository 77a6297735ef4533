"""Short questions, all over one connection: opened with the first, opened anew when it was lost.

Decides that a question is asked at most twice, and what its failure is called. Must never block for long: whoever
waits for something to happen takes a `Link` of its own.
"""

import asyncio
import logging
import os
from typing import Final

from redis.exceptions import ReadOnlyError, RedisError

from consumers.command import Command, Reply
from consumers.errors import BusClosed, BusUnavailable, elsewhere, forked, whereabouts
from consumers.link import Link, Target
from consumers.reconnect import is_passing, reason

SILENT_S: Final = 2.5
"""How long Redis may take for an answer before that is told."""
TURN_S: Final = 0.1
"""For an event loop that stood still to read what came meanwhile."""
_log = logging.getLogger(__name__)


class SharedLink:
    """One connection that any number of tasks of one event loop ask in turn; closed until `open`."""

    def __init__(self, target: Target) -> None:
        self._target: Final = target
        self._link: Link | None = None
        self._lock: Final = asyncio.Lock()
        self._is_open = False
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_open(self) -> bool:
        """Whether it may be asked. It connects only when it is."""
        return self._is_open

    def open(self) -> None:
        """Allow questions, in this process and this event loop, or else in the first that asks."""
        self._is_open = True
        self._pid = os.getpid()
        self._loop = _loop_here()

    def check_open(self) -> None:
        """Raise `BusClosed` unless it may be asked, `BusError` in another process or loop than it was opened in."""
        if self._is_open and os.getpid() != self._pid:
            raise forked()
        if not self._is_open:
            raise BusClosed("the bus is not open: use it inside `async with connect(url) as bus:`")
        self.check_loop()

    def check_loop(self) -> None:
        """Raise `BusError` in another event loop than the one it was opened in, to which its connection belongs."""
        here = _loop_here()
        if here is not None and here is not self._loop:
            if self._loop is not None:
                raise elsewhere()
            self._loop = here

    async def ask(self, *commands: Command) -> list[Reply]:
        """The replies, in order. A question may reach Redis twice, so it must be one that does no harm then.

        Raises `BusUnavailable` when Redis does not answer, or answers any of them with an error; `BusClosed`.
        """
        return await self._ask(commands, may_fail=False)

    async def ask_aloud(self, *commands: Command) -> list[Reply]:
        """As `ask`, for somebody who waits for nothing but this: the log says when no answer comes."""
        loop = asyncio.get_running_loop()
        words = ("no answer from %s for %g s", whereabouts(self._target.address), SILENT_S)

        timers: list[asyncio.TimerHandle] = []

        def tell_unless_it_has_come() -> None:
            # A loop that stood still reads what came meanwhile first.
            timers.append(loop.call_later(TURN_S, _log.warning, *words))

        timers.append(loop.call_later(SILENT_S, tell_unless_it_has_come))
        try:
            return await self.ask(*commands)
        finally:
            for timer in timers:
                timer.cancel()

    async def ask_each(self, *commands: Command) -> list[Reply]:
        """As `ask`, but where Redis answers a command with an error, that stands among the replies in its place."""
        return await self._ask(commands, may_fail=True)

    async def _ask(self, commands: tuple[Command, ...], *, may_fail: bool) -> list[Reply]:
        # Twice, because the first failure may only tell that an idle connection was closed long ago.
        for attempt in (1, 2):
            self.check_open()
            async with self._lock:
                try:
                    link = await self._opened()
                    replies = await link.ask(*commands)
                    for reply in replies:
                        if isinstance(reply, Exception) and not may_fail:
                            raise reply
                except (RedisError, OSError) as error:
                    await self._drop()
                    passing = is_passing(error)
                    if attempt == 2 or not passing:
                        raise BusUnavailable(
                            self._target.address, reason(error), attempts=attempt, is_passing=passing
                        ) from None
                else:
                    if any(isinstance(reply, ReadOnlyError) for reply in replies):
                        # The address may lead to the new primary by now.
                        await self._drop()
                    return replies
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """End the connection and answer no more; a task that waits for a reply sees it as lost."""
        self._is_open = False
        await self._drop()

    async def _opened(self) -> Link:
        if self._link is None or not self._link.is_open:
            # Known before it is open: `close` ends its handshake.
            self._link = link = Link(self._target)
            await link.open()
            if not self._is_open:
                await link.close()
                self.check_open()
            return link
        return self._link

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
