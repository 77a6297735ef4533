"""The shell that asks for followers: their reads, and what the streams brought, whoever it is handed to.

Decides nothing about positions or trust (`pursuit` does). Must never decode an entry nor hold one back: what a read
brought goes to the caller as it is, so memory stays that of one reply.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from consumers.command import Command, Reply
from consumers.link import Link, Target
from consumers.reading.freshness import ServerClock, server_time_ns
from consumers.reading.gaps import Anchor
from consumers.reading.line import IDLE_S, Line
from consumers.reading.pursuit import BLOCK_S, PROMPT_S, Pursuit
from consumers.reading.start import Place, Wish, before, may_lie_in_a_hole, questions, settle
from consumers.reading.track import Run, Track
from consumers.reconnect import Reconnect, tells_of_key
from consumers.shared_link import SharedLink
from wire import Keyspace, Quote, Symbol

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""One that goes on while the machine sleeps, where there is such a clock."""


class Source(Line):
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
        super().__init__(target, keys, reconnect, task="reading from", on_return=on_return)
        self.shared: Final = shared
        """For short questions beside the reading."""
        self.pursuit: Final = Pursuit(keys, prompt_s=-1.0 if target.is_in_memory else PROMPT_S)
        self.snapshots: list[tuple[Track, Quote]] = []
        """Quotes of the cache with which a symbol begins, to be handed out before anything of its stream."""
        self._wishes: dict[Symbol, Wish | Place] = {}
        self._clock: ServerClock | None = None

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return frozenset(self.pursuit.positions) | frozenset(self._wishes)

    @property
    def settled(self) -> frozenset[str]:
        """Those of them whose place in their stream is known."""
        return frozenset(self.pursuit.positions)

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
                continue
            self.pursuit.follow(symbol, origin)
            if may_lie_in_a_hole(origin):
                self._wishes[symbol] = origin

    def drop(self, symbol: Symbol) -> None:
        """Follow this symbol no more."""
        self._wishes.pop(symbol, None)
        self.pursuit.drop(symbol)

    async def rewind(self) -> None:
        """Begin a new loop: what was read and not handed out will be read again."""
        await self.hang_up()
        # Quotes of a snapshot that an earlier loop left behind: the positions lead to them through the stream.
        self.snapshots.clear()
        self.pursuit.lost_touch()

    async def next_runs(self, *, wait: bool = True) -> list[Run]:
        """What the next read brings, perhaps nothing; with `wait` it is given half a second to bring something.

        Comes back after a lost connection as `Reconnect` says, and raises `BusUnavailable` when that is over, or
        when Redis refuses us; `BusError` in a forked process.
        """
        return await self._persist(partial(self._read, wait=wait))

    def _halt(self) -> None:
        self.pursuit.halt()

    async def _opened(self, link: Link) -> None:
        self.pursuit.lost_touch()
        if self._clock is not None:
            await self._ask_with_time(link, self._clock, ())

    async def _read(self, link: Link, *, wait: bool) -> list[Run]:
        if self._wishes:
            await self._settle(link)
            if self.snapshots:
                return []
        now_s = asyncio.get_running_loop().time
        block_s = min(BLOCK_S, self.target.block_s, self.left_s) if wait else 0.0
        read = self.pursuit.next_read(now_s(), block_s)
        if not read.tracks and wait:
            await self._pause(IDLE_S)
        if not read.commands:
            return []
        if self._clock is not None and self._clock.is_due(time.clock_gettime_ns(_CLOCK)):
            replies = await self._ask_with_time(link, self._clock, read.commands)
        else:
            replies = await link.ask(*read.commands)
        questions = self.pursuit.proofs(read, replies)
        proofs = await link.ask(*questions) if questions else ()
        runs = self.pursuit.digest(read, replies, now_s(), proofs)
        self._tell_barred(self.pursuit.barred)
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
            if isinstance(wish, Place):
                continue
            settled.append(symbol)
            if place.quote is not None:
                # Until the quote is handed out, a saved position must still lead to it.
                track.after, track.anchor = str(before(place.after)), Anchor.CHOSEN
                self.snapshots.append((track, place.quote))
        self.on_settled(frozenset(settled))
