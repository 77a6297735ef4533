"""What every loop over Redis has in common: one connection at a time, made anew when it is lost, and its waits.

Decides when to connect, and what the log says of it. Must never know what is asked: `source` asks for followers of
streams, `consumers.groups.share` for workers of a group. When to give up is for `reconnect` to say.
"""

import asyncio
import contextlib
import logging
import math
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.exceptions import RedisError

from consumers.errors import BusUnavailable, forked, whereabouts
from consumers.link import Link, Target
from consumers.reading.start import Place, Wish
from consumers.reconnect import Loudness, Reconnect, is_passing, reason
from wire import Keyspace, Symbol

_log = logging.getLogger(__name__)

R = TypeVar("R")

"""How often a failure is a warning at most; attempts in between are told for information."""
IDLE_S: Final = 0.25
"""Pause when there is nothing to read: all symbols removed, or all keys of another type."""


class Line(ABC):
    """A connection for one loop at a time, through any number of failures; the log names `task` as its purpose."""

    def __init__(
        self,
        target: Target,
        keys: Keyspace,
        reconnect: Reconnect,
        *,
        task: str,
        on_return: Callable[[], None] | None = None,
    ) -> None:
        self.target: Final = target
        self.keys: Final = keys
        self.on_settled: Callable[[frozenset[str]], None] = lambda _: None
        """Called with the symbols whose place Redis has just told; must not block or raise."""
        self.until_s: float | None = None
        """Until when, by the loop's clock, somebody waits for what comes; None: for ever."""
        self._reconnect: Final = reconnect
        self._task: Final = task
        self._on_return: Final = on_return
        """Called when Redis is reached again after a failure; must not block or raise."""
        self._link: Link | None = None
        self._closing: Final = asyncio.Event()
        self._pid: Final = os.getpid()
        self._is_reading = False
        self._failures = 0
        self._again_at_s = 0.0
        self._loudness: Final = Loudness()
        self._barred: list[str] = []

    @property
    @abstractmethod
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""

    @property
    @abstractmethod
    def settled(self) -> frozenset[str]:
        """Those of them whose place in their stream is known."""

    @abstractmethod
    def begin(self, starts: dict[Symbol, Wish | Place]) -> None:
        """Follow these symbols, from the next read on."""

    @abstractmethod
    def drop(self, symbol: Symbol) -> None:
        """Follow this symbol no more."""

    @abstractmethod
    async def rewind(self) -> None:
        """Begin a new loop: what was read and not handed out will be read again."""

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to Redis at this moment."""
        return self._link is not None and self._link.is_open

    @property
    def failures(self) -> int:
        """Failures in a row since Redis answered last; 0 while it does."""
        return self._failures

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closing.is_set()

    @property
    def is_reading(self) -> bool:
        """Whether somebody waits for what the next read brings."""
        return self._is_reading

    @property
    def is_due(self) -> bool:
        """Whether nobody waits any longer."""
        return self.left_s == 0

    @property
    def left_s(self) -> float:
        """For how much longer somebody waits."""
        if self.until_s is None:
            return math.inf
        return max(0.0, self.until_s - asyncio.get_running_loop().time())

    def check_process(self) -> None:
        """Raise `BusError` in a process that was forked from the one this belongs to."""
        if os.getpid() != self._pid:
            raise forked()

    async def hang_up(self) -> None:
        """Close the connection; the next read opens another."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def close(self) -> None:
        """End every wait and hand nothing out any more. May be called again."""
        self._closing.set()
        self._halt()
        if self._link is not None:
            await self._link.close()

    @abstractmethod
    def _halt(self) -> None:
        """Hand nothing out any more."""

    @abstractmethod
    async def _opened(self, link: Link) -> None:
        """This connection is new: anything may have happened since the last one."""

    async def _persist(self, step: Callable[[Link], Awaitable[list[R]]]) -> list[R]:
        """What the step brings, on whichever connection it succeeds; nothing when all is closed or due meanwhile.

        Raises `BusUnavailable` when `Reconnect` gives up or Redis refuses us; `BusError` in a forked process.
        """
        self.check_process()
        clock = asyncio.get_running_loop().time
        self._is_reading = True
        try:
            while not self._closing.is_set():
                # Also of who asks anew each tenth of a second: a pause is the server's, not the caller's.
                await self._pause(self._again_at_s - clock())
                if self._again_at_s > clock() and self.is_due:
                    return []
                try:
                    runs = await step(self._link or await self._connect())
                except (RedisError, OSError) as error:
                    # What was lost in a fork is the parent's, and no news.
                    self.check_process()
                    await self.hang_up()
                    if not self._closing.is_set():
                        self._again_at_s = clock() + self._failed(error)
                else:
                    self._failures = 0
                    return runs
            return []
        finally:
            self._is_reading = False

    async def _connect(self) -> Link:
        self._link = link = Link(self.target)
        await link.open()
        await self._opened(link)
        if self._failures:
            _log.info("%s is back after %d attempts", whereabouts(self.target.address), self._failures)
            if self._on_return is not None:
                self._on_return()
        return link

    def _failed(self, error: RedisError | OSError) -> float:
        """Seconds until the next attempt, if there is to be one."""
        self._failures = failures = self._failures + 1
        passing = is_passing(error)
        if not passing or self._reconnect.gives_up(failures):
            # The next loop has its attempts again.
            self._failures = 0
            raise BusUnavailable(
                self.target.address, reason(error), attempts=failures, is_passing=passing
            ) from None
        delay_s = self._reconnect.delay_s(failures, random.random())
        _log.log(
            self._loudness.level(asyncio.get_running_loop().time()),
            "%s %s failed (%s); attempt %d%s in %.2f s",
            self._task,
            whereabouts(self.target.address),
            reason(error),
            failures,
            "" if self._reconnect.attempts is None else f" of {self._reconnect.attempts}",
            delay_s,
        )
        return delay_s

    def _tell_barred(self, barred: list[str]) -> None:
        if barred != self._barred:
            self._barred = barred
            if barred:
                _log.warning(
                    "not streams, and so not read until they are: %s; remove these keys from Redis",
                    ", ".join(self.keys.stream(symbol) for symbol in barred)[:500],
                )

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self.left_s)):
                await self._closing.wait()
