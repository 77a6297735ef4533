"""The shell that asks: one connection, its waits, and what the streams brought, whoever it is handed to.

Decides nothing about positions or trust (`pursuit` does) nor when to give up (`reconnect` does). Must never decode
an entry nor hold one back: what a read brought goes to the caller as it is, so memory stays that of one reply.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from consumers.errors import BusUnavailable, forked
from consumers.link import Command, Link, Reply, Target
from consumers.reading.freshness import ServerClock, server_time_ns
from consumers.reading.pursuit import Pursuit, Run, Track
from consumers.reading.start import Place, Wish, before, questions, settle
from consumers.reconnect import Reconnect, is_passing, reason, tells_of_key
from consumers.shared_link import SharedLink
from wire import Keyspace, Quote, Symbol

_log = logging.getLogger(__name__)

IDLE_S: Final = 0.25
"""Pause when there is no stream to read: all symbols removed, or all keys of another type."""
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""One that goes on while the machine sleeps, where there is such a clock."""


class Source:
    """Raw entries of some streams, read by one loop at a time, through any number of connections in turn."""

    def __init__(
        self,
        target: Target,
        keys: Keyspace,
        reconnect: Reconnect,
        shared: SharedLink,
        *,
        on_return: Callable[[], None] | None = None,
    ) -> None:
        self.target: Final = target
        self.shared: Final = shared
        """For short questions beside the reading."""
        self.keys: Final = keys
        self.pursuit: Final = Pursuit(keys)
        self.snapshots: list[tuple[Track, Quote]] = []
        """Quotes of the cache with which a symbol begins, to be handed out before anything of its stream."""
        self._reconnect: Final = reconnect
        self._on_return: Final = on_return
        """Called when Redis is reached again after a failure; must not block or raise."""
        self.on_settled: Callable[[frozenset[str]], None] = lambda _: None
        """Called with the symbols whose place Redis has just told; must not block or raise."""
        self._wishes: dict[Symbol, Wish] = {}
        self._clock: ServerClock | None = None
        self._link: Link | None = None
        self._closing: Final = asyncio.Event()
        self._pid: Final = os.getpid()
        self._is_reading = False
        self._failures = 0
        self._barred: list[str] = []

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return frozenset(self.pursuit.positions) | frozenset(self._wishes)

    @property
    def settled(self) -> frozenset[str]:
        """Those of them whose place in their stream is known."""
        return frozenset(self.pursuit.positions)

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
        """Whether somebody waits for `next_runs`."""
        return self._is_reading

    def keep_time(self) -> None:
        """Compare clocks with the server from now on."""
        self._clock = ServerClock()

    def now_ns(self) -> int:
        """The server's time, nanoseconds since the epoch; to be asked only after a read, and after `keep_time`."""
        assert self._clock is not None, "keep_time first"
        return self._clock.now_ns(time.clock_gettime_ns(_CLOCK))

    def begin(self, starts: dict[Symbol, Wish | Place]) -> None:
        """Follow these symbols, from the next read on."""
        for symbol, origin in starts.items():
            if isinstance(origin, Wish):
                self._wishes[symbol] = origin
            else:
                self.pursuit.follow(symbol, origin)

    def drop(self, symbol: Symbol) -> None:
        """Follow this symbol no more."""
        self._wishes.pop(symbol, None)
        self.pursuit.drop(symbol)

    def check_process(self) -> None:
        """Raise `BusError` in a process that was forked from the one this belongs to."""
        if os.getpid() != self._pid:
            raise forked()

    async def rewind(self) -> None:
        """Begin a new loop: everything that was read and not handed out will be read again."""
        await self.hang_up()
        # Quotes of a snapshot that an earlier loop left behind: the positions lead to them through the stream.
        self.snapshots.clear()
        self.pursuit.lost_touch()

    async def hang_up(self) -> None:
        """Close the connection; the next read opens another."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def close(self) -> None:
        """End every wait and hand nothing out any more. May be called again."""
        self._closing.set()
        self.pursuit.halt()
        if self._link is not None:
            await self._link.close()

    async def next_runs(self, *, wait: bool = True) -> list[Run]:
        """What the next read brings, perhaps nothing; with `wait` it is given half a second to bring something.

        Comes back after a lost connection as `Reconnect` says, and raises `BusUnavailable` when that is over, or
        when Redis refuses us; `BusError` in a forked process.
        """
        self.check_process()
        self._is_reading = True
        try:
            return await self._persist(wait)
        finally:
            self._is_reading = False

    async def _persist(self, wait: bool) -> list[Run]:
        while not self._closing.is_set():
            try:
                if self._link is None:
                    self._link = Link(self.target)
                    await self._link.open()
                    self.pursuit.lost_touch()
                    if self._clock is not None:
                        await self._ask_with_time(self._link, self._clock, ())
                    if self._failures:
                        _log.info(
                            "Redis at %s is back after %d attempts", self.target.address, self._failures
                        )
                        if self._on_return is not None:
                            self._on_return()
                runs = await self._read(self._link, wait)
            except (RedisError, OSError) as error:
                await self.hang_up()
                if self._closing.is_set():
                    break
                self._failures = failures = self._failures + 1
                passing = is_passing(error)
                if not passing or self._reconnect.gives_up(failures):
                    # The next loop over this stream has its attempts again.
                    self._failures = 0
                    raise BusUnavailable(
                        self.target.address, reason(error), attempts=failures, is_passing=passing
                    ) from None
                delay_s = self._reconnect.delay_s(failures, random.random())
                _log.warning(
                    "reading from Redis at %s failed (%s); attempt %d%s in %.2f s",
                    self.target.address,
                    reason(error),
                    failures,
                    "" if self._reconnect.attempts is None else f" of {self._reconnect.attempts}",
                    delay_s,
                )
                await self._pause(delay_s)
            else:
                self._failures = 0
                return runs
        return []

    async def _read(self, link: Link, wait: bool) -> list[Run]:
        if self._wishes:
            await self._settle(link)
            if self.snapshots:
                return []
        now_s = asyncio.get_running_loop().time
        read = self.pursuit.next_read(now_s(), wait=wait)
        if not read.tracks and wait:
            await self._pause(IDLE_S)
        if not read.commands:
            return []
        if self._clock is not None and self._clock.is_due(time.clock_gettime_ns(_CLOCK)):
            replies = await self._ask_with_time(link, self._clock, read.commands)
        else:
            replies = await link.ask(*read.commands)
        runs = self.pursuit.digest(read, replies, now_s())
        barred = self.pursuit.barred
        if barred != self._barred:
            self._barred = barred
            if barred:
                _log.warning(
                    "not streams, and so not read until they are: %s; remove these keys from Redis",
                    ", ".join(self.keys.stream(symbol) for symbol in barred)[:500],
                )
        return runs

    @staticmethod
    async def _ask_with_time(link: Link, clock: ServerClock, commands: tuple[Command, ...]) -> list[Reply]:
        asked_ns = time.clock_gettime_ns(_CLOCK)
        told, *replies = await link.ask(("TIME",), *commands)
        if isinstance(told, Exception):
            raise told
        clock.learn(server_time_ns(told), asked_ns, time.clock_gettime_ns(_CLOCK))
        return replies

    async def _settle(self, link: Link) -> None:
        asked = [(symbol, wish, questions(self.keys, symbol, wish)) for symbol, wish in self._wishes.items()]
        commands: list[Command] = [command for _, _, parts in asked for command in parts]
        replies = await link.ask(*commands)
        for reply in replies:
            if isinstance(reply, Exception) and not tells_of_key(reply):
                raise reply
        answers = iter(replies)
        settled = []
        for symbol, wish, parts in asked:
            place = settle(symbol, wish, [next(answers) for _ in parts])
            if self._wishes.pop(symbol, None) is None:
                continue  # removed while we asked
            track = self.pursuit.follow(symbol, place)
            settled.append(symbol)
            if place.quote is not None:
                # Until the quote is handed out, a saved position must still lead to it.
                track.after = str(before(place.after))
                self.snapshots.append((track, place.quote))
        self.on_settled(frozenset(settled))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
