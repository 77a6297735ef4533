"""The shell that asks for a worker: its steps, its acknowledgements, and what they brought.

Decides nothing about groups (`membership` does) nor what to acknowledge (`book` does). Must never decode an entry.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from consumers.command import Command, Reply
from consumers.groups.book import Book
from consumers.groups.membership import BLOCK_S, Membership
from consumers.groups.record import Debt
from consumers.groups.track import Run, Track
from consumers.link import Link, Target
from consumers.reading.line import IDLE_S, Line
from consumers.reading.start import Place, Wish
from consumers.reconnect import Reconnect, is_wrong_type
from consumers.shared_link import SharedLink
from wire import Keyspace, Symbol


class Share(Line):
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
        super().__init__(target, keys, reconnect, task=f"group {group}: working with", on_return=on_return)
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
        self._unsettled: set[Track] = set()
        self.asked_at_s = 0.0
        """When the entries were asked for that `next_runs` brought last: a process that is stopped while it waits
        for an answer reads it long after Redis has given them, and may have given them to others since."""

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return frozenset(self.membership.tracks)

    @property
    def settled(self) -> frozenset[str]:
        """Those of them where the group is there, or will be made at a place that is known."""
        return frozenset(symbol for symbol, track in self.membership.tracks.items() if track.is_settled)

    def begin(self, starts: dict[Symbol, Wish | Place]) -> None:
        """Follow these symbols, from the next read on."""
        for symbol, origin in starts.items():
            self._unsettled.add(self.membership.follow(symbol, origin))

    def drop(self, symbol: Symbol) -> None:
        """Follow this symbol no more."""
        self.membership.drop(symbol)

    async def rewind(self) -> None:
        """Begin a new loop: what was read and not handed out will be read again."""
        await self.hang_up()

    async def next_runs(self) -> list[Run]:
        """What the next step brings, perhaps nothing, within half a second or so.

        Comes back after a lost connection as `Reconnect` says, and raises `BusUnavailable` when that is over, or
        when Redis refuses us; `BusError` in a forked process.
        """
        return await self._persist(self._step)

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

    def told(self, track: Track, debt: Debt) -> None:
        """The strategy has the gap that pays this debt."""
        self.membership.told(track, debt)

    def handed_over(self) -> None:
        """The strategy has its turn: what was found and not fetched is to be looked for again."""
        self.membership.handed_over()

    async def part(self, shared: SharedLink) -> None:
        """Write down where the groups stand, and which gaps were told, for those who come later."""
        now_s = asyncio.get_running_loop().time
        step = self.membership.last_step(now_s())
        if step is not None:
            step.digest(await shared.ask_each(*step.commands), now_s())
        if words := self.membership.last_words(now_s()):
            await shared.ask_each(*words)

    def _halt(self) -> None:
        self.membership.halt()

    async def _opened(self, _: Link) -> None:
        self.membership.lost_touch()

    async def _step(self, link: Link) -> list[Run]:
        now_s = asyncio.get_running_loop().time
        if not self.membership.holds_back:
            self.asked_at_s = now_s()
        step = self.membership.next_step(now_s(), min(BLOCK_S, self.target.block_s, self.left_s))
        is_asked = bool(step.commands or self.book.waiting)
        runs = step.digest(await self._ask(link, *step.commands) if is_asked else [], now_s())
        if not (step.commands or runs):
            await self._pause(IDLE_S)
            return []
        if self._unsettled:
            self._settle()
        for run in runs:
            for entry_id in run.settled:
                self.book.done(run.track.symbol, entry_id)
        # Not with something in hand or to be made: whoever gives up on us while we pause would lose that.
        tracks = self.membership.tracks.values()
        if not runs and not any(track.joined or track.birth is not None for track in tracks):
            await self._pause(IDLE_S / 5)
        self._tell_barred(self.membership.barred)
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

    def _settle(self) -> None:
        settled = {track for track in self._unsettled if track.is_settled}
        self._unsettled -= settled
        self._unsettled = {track for track in self._unsettled if not track.dropped}
        self.on_settled(frozenset(track.symbol for track in settled if not track.dropped))


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n)
