"""The shell that asks for a worker: its connection, its waits, its acknowledgements, and what the steps brought.

Decides nothing about groups (`membership` does), what to acknowledge (`book` does) nor when to give up
(`reconnect` does). Must never decode an entry.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from consumers.errors import BusUnavailable, forked
from consumers.groups.book import Book
from consumers.groups.membership import Membership
from consumers.groups.track import Run, Track
from consumers.link import Command, Link, Reply, Target
from consumers.reconnect import Reconnect, is_passing, is_wrong_type, reason
from wire import Keyspace

_log = logging.getLogger(__name__)

IDLE_S: Final = 0.25
"""Pause while there is nothing to read: no group could be joined yet, or no symbol is left."""


class Share:
    """One worker's part of the entries, as raw runs; read by one loop at a time."""

    def __init__(
        self,
        target: Target,
        keys: Keyspace,
        reconnect: Reconnect,
        group: str,
        consumer: str,
        *,
        claim_after_s: float,
        prefetch: int,
        on_return: Callable[[], None] | None = None,
    ) -> None:
        self.target: Final = target
        self.keys: Final = keys
        self.group: Final = group
        self.consumer: Final = consumer
        self.book: Final = Book(keys, group)
        self.membership: Final = Membership(
            keys,
            group,
            consumer,
            claim_after_s=claim_after_s,
            prefetch=prefetch,
            holds=self.book.holds,
            chance=random.random,
        )
        self._reconnect: Final = reconnect
        self._on_return: Final = on_return
        """Called when Redis is reached again after a failure; must not block or raise."""
        self._link: Link | None = None
        self._closing: Final = asyncio.Event()
        self._pid: Final = os.getpid()
        self._barred: list[str] = []
        self.is_reading = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closing.is_set()

    def check_process(self) -> None:
        """Raise `BusError` in a process that was forked from the one this belongs to."""
        if os.getpid() != self._pid:
            raise forked()

    async def hang_up(self) -> None:
        """Close the connection; the next step opens another."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def close(self) -> None:
        """End every wait and hand nothing out any more. May be called again."""
        self._closing.set()
        self.membership.halt()
        if self._link is not None:
            await self._link.close()

    async def next_runs(self) -> list[Run]:
        """What the next step brings, perhaps nothing, within half a second or so.

        Comes back after a lost connection as `Reconnect` says, and raises `BusUnavailable` when that is over, or
        when Redis refuses us; `BusError` in a forked process.
        """
        self.check_process()
        self.is_reading = True
        try:
            return await self._persist()
        finally:
            self.is_reading = False

    async def flush(self) -> None:
        """Send the acknowledgements that wait over the own connection, if there is one; a failure is not told:
        they go on waiting."""
        if self._link is None or not self.book.waiting:
            return
        try:
            await self._ask(self._link)
        except (RedisError, OSError):
            await self.hang_up()

    async def renew(self, rest: dict[Track, list[str]]) -> dict[Track, set[str]]:
        """Keep these entries from being claimed by others; returns those that still are this worker's.

        The count of deliveries stays. When Redis is away none are: the next step asks for what is left.
        """
        mine: dict[Track, set[str]] = {}
        if self._link is None:
            return mine
        tracks = [track for track in rest if rest[track]]
        asked: list[Command] = []
        for track in tracks:
            ids = rest[track]
            low, high = min(ids, key=_order), max(ids, key=_order)
            count = len(ids) + self.book.held
            asked.append(("XPENDING", track.key, self.group, low, high, count, self.consumer))
        try:
            replies = await self._ask(self._link, *asked)
            kept: list[Command] = []
            for track, found in zip(tracks, replies, strict=True):
                pending = set() if isinstance(found, Exception) else {raw_id.decode() for raw_id, *_ in found}
                mine[track] = pending.intersection(rest[track])
                if mine[track]:
                    kept.append(("XCLAIM", track.key, self.group, self.consumer, 0, *mine[track], "JUSTID"))
            if kept:
                await self._ask(self._link, *kept)
        except (RedisError, OSError):
            await self.hang_up()
            return {}
        return mine

    async def _persist(self) -> list[Run]:
        failures = 0
        while not self._closing.is_set():
            try:
                if self._link is None:
                    self._link = Link(self.target)
                    await self._link.open()
                    self.membership.lost_touch()
                    if failures:
                        _log.info("Redis at %s is back after %d attempts", self.target.address, failures)
                        if self._on_return is not None:
                            self._on_return()
                return await self._step(self._link)
            except (RedisError, OSError) as error:
                await self.hang_up()
                if self._closing.is_set():
                    break
                failures += 1
                if not is_passing(error) or self._reconnect.gives_up(failures):
                    why = reason(error)
                    raise BusUnavailable(self.target.address, why, attempts=failures) from None
                delay_s = self._reconnect.delay_s(failures, random.random())
                _log.warning(
                    "group %s: working with Redis at %s failed (%s); attempt %d%s in %.2f s",
                    self.group,
                    self.target.address,
                    reason(error),
                    failures,
                    "" if self._reconnect.attempts is None else f" of {self._reconnect.attempts}",
                    delay_s,
                )
                await self._pause(delay_s)
        return []

    async def _step(self, link: Link) -> list[Run]:
        now_s = asyncio.get_running_loop().time
        step = self.membership.next_step(now_s())
        if not step.commands:
            if self.book.waiting:
                await self._ask(link)
            await self._pause(IDLE_S)
            return []
        runs = step.digest(await self._ask(link, *step.commands), now_s())
        for run in runs:
            for entry_id in run.settled:
                self.book.done(run.track.symbol, entry_id)
        # Not with something in hand or to be made: whoever gives up on us while we pause would lose that.
        tracks = self.membership.tracks.values()
        if not runs and not any(track.joined or track.beginning is not None for track in tracks):
            await self._pause(IDLE_S / 5)
        self._tell_barred()
        return runs

    async def _ask(self, link: Link, *commands: Command) -> list[Reply]:
        """The replies to these, after the acknowledgements that wait have gone before them."""
        sending = self.book.sending()
        acks = len(sending.commands)
        replies = await link.ask(*sending.commands, *commands)
        for reply in replies[:acks]:
            # A key that holds no stream any more has nothing to acknowledge.
            if isinstance(reply, Exception) and not is_wrong_type(reply):
                raise reply
        self.book.settle(sending.ids)
        return replies[acks:]

    def _tell_barred(self) -> None:
        barred = self.membership.barred
        if barred != self._barred:
            self._barred = barred
            if barred:
                _log.warning(
                    "not streams, and so not read until they are: %s; remove these keys from Redis",
                    ", ".join(self.keys.stream(symbol) for symbol in barred)[:500],
                )

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n)
