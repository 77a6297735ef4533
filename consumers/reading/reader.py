"""The shell of one iteration: its connection, its waits, and the hand-over of entries one by one.

Decides nothing about positions or trust (`pursuit` does) nor when to give up (`reconnect` does). Must never hold
entries back: what a read brought is handed out before the next one is asked for, so memory stays that of one reply.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from redis.exceptions import RedisError

from consumers.errors import BusError, BusUnavailable
from consumers.link import Command, Link, Target
from consumers.reading.gaps import Anchor
from consumers.reading.pursuit import Pursuit, Run, Track
from consumers.reading.start import Place, Wish, before, parse_starts, parse_symbols, questions, settle
from consumers.reconnect import Reconnect, is_passing, reason, tells_of_key
from wire import GAP_FIELD, QUOTE_FIELD, BadEntry, Gap, Keyspace, Quote, Symbol, decode_gap, decode_quote

_log = logging.getLogger(__name__)

LOG_EVERY_S: Final = 60.0
IDLE_S: Final = 0.25
"""Pause when there is no stream to read: all symbols removed, or all keys of another type."""

_QUOTE = QUOTE_FIELD.encode()
_GAP = GAP_FIELD.encode()


class QuoteStream:
    """Quotes and gaps of some symbols, to be read with `async for`; made by `Bus.quotes`.

    Entries of one symbol come in the stream's order; between symbols they come as they were read, which while
    catching up is not by time. Leaving the loop (break, exception, cancellation) closes the connection; another
    `async for` over the same object goes on after the last item that was handed out.
    """

    def __init__(
        self, target: Target, keys: Keyspace, reconnect: Reconnect, symbols: tuple[object, ...], start: object
    ) -> None:
        self._target: Final = target
        self._keys: Final = keys
        self._reconnect: Final = reconnect
        self._pursuit: Final = Pursuit(keys)
        self._wishes: dict[Symbol, Wish] = {}
        self._snapshots: list[tuple[Track, Quote]] = []
        self._link: Link | None = None
        self._closing: Final = asyncio.Event()
        self._turn = 0
        self._reading = False
        self._failures = 0
        self._unreadable = 0
        self._unreadable_logged_at_s = -LOG_EVERY_S
        self._barred: list[str] = []
        self._begin(parse_starts(parse_symbols(symbols), start))

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> entry id after which reading goes on: that of the last item handed out.

        Save it, and pass it as `start` later: nothing is missed and nothing comes twice. A symbol whose start
        Redis has not yet been asked for is absent.
        """
        return self._pursuit.positions

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return frozenset(self._pursuit.positions) | frozenset(self._wishes)

    @property
    def unreadable(self) -> int:
        """Entries skipped because they were neither quote nor gap of this contract."""
        return self._unreadable

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to Redis at this moment; only a loop that runs has one."""
        return self._link is not None and self._link.is_open

    @property
    def failures(self) -> int:
        """Failures in a row since Redis answered last; 0 while it does."""
        return self._failures

    def add(self, *symbols: str, start: object = "now") -> None:
        """Follow more symbols, from the next read on (within half a second). One that is followed stays as it is.

        Raises `BadSymbol` and `BadStart`.
        """
        starts = parse_starts(parse_symbols(symbols), start)
        self._begin({symbol: origin for symbol, origin in starts.items() if symbol not in self.symbols})

    def remove(self, *symbols: str) -> None:
        """Follow these symbols no more, at once; one that is not followed is ignored. Raises `BadSymbol`."""
        for symbol in parse_symbols(symbols):
            self._wishes.pop(symbol, None)
            self._pursuit.drop(symbol)

    async def aclose(self) -> None:
        """End the iteration, wherever it waits, and close its connection. May be called again."""
        self._closing.set()
        self._pursuit.halt()
        if self._link is not None:
            await self._link.close()

    def __aiter__(self) -> AsyncIterator[Quote | Gap]:
        # A generator and not __anext__: Python closes a generator that a loop has left, and nothing else.
        return self._items()

    def __repr__(self) -> str:
        return f"<QuoteStream {len(self.symbols)} symbols at {self._target.address}>"

    def _begin(self, starts: dict[Symbol, Wish | Place]) -> None:
        for symbol, origin in starts.items():
            if isinstance(origin, Wish):
                self._wishes[symbol] = origin
            else:
                self._pursuit.follow(symbol, origin)

    async def _items(self) -> AsyncGenerator[Quote | Gap, None]:
        if self._reading:
            raise self._taken_over()
        self._turn += 1
        turn = self._turn
        await self._hang_up()
        # Quotes of a snapshot that an earlier loop left behind: the positions lead to them through the stream.
        self._snapshots.clear()
        self._pursuit.lost_touch()
        try:
            while not self._closing.is_set():
                self._reading = True
                try:
                    runs = await self._next_runs()
                finally:
                    self._reading = False
                while self._snapshots:
                    track, quote = self._snapshots.pop(0)
                    if not track.dropped:
                        track.after = str(quote.id)
                        yield quote
                        if turn != self._turn:
                            raise self._taken_over()
                # The innermost lines of the library run once per quote, and so reach into the track themselves.
                for track, gap, entries in runs:
                    symbol = track.symbol
                    if gap is not None and not track.dropped:
                        yield gap
                        if turn != self._turn:
                            raise self._taken_over()
                    if entries:
                        track.anchor = Anchor.SEEN
                    for raw_id, fields in entries:
                        if track.dropped:
                            break
                        entry_id = raw_id.decode()
                        try:
                            item: Quote | Gap = (
                                decode_quote(symbol, entry_id, fields[1])
                                if fields[0] == _QUOTE
                                else decode_entry(symbol, entry_id, fields)
                            )
                        except BadEntry as error:
                            track.after = entry_id
                            self._skipped(error)
                            continue
                        track.after = entry_id
                        yield item
                        if turn != self._turn:
                            raise self._taken_over()
        finally:
            if turn == self._turn:
                await self._hang_up()

    async def _next_runs(self) -> list[Run]:
        while not self._closing.is_set():
            try:
                if self._link is None:
                    self._link = Link(self._target)
                    await self._link.open()
                    self._pursuit.lost_touch()
                    if self._failures:
                        _log.info(
                            "Redis at %s is back after %d attempts", self._target.address, self._failures
                        )
                runs = await self._read(self._link)
            except (RedisError, OSError) as error:
                await self._hang_up()
                if self._closing.is_set():
                    break
                self._failures = failures = self._failures + 1
                passing = is_passing(error)
                if not passing or self._reconnect.gives_up(failures):
                    # The next loop over this stream has its attempts again.
                    self._failures = 0
                    why = reason(error)
                    raise BusUnavailable(
                        self._target.address, why, attempts=failures, is_passing=passing
                    ) from None
                delay_s = self._reconnect.delay_s(failures, random.random())
                _log.warning(
                    "reading from Redis at %s failed (%s); attempt %d%s in %.2f s",
                    self._target.address,
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

    async def _read(self, link: Link) -> list[Run]:
        if self._wishes:
            await self._settle(link)
            if self._snapshots:
                return []
        now_s = asyncio.get_running_loop().time
        read = self._pursuit.next_read(now_s())
        if not read.tracks:
            await self._pause(IDLE_S)
        if not read.commands:
            return []
        runs = self._pursuit.digest(read, await link.ask(*read.commands), now_s())
        barred = self._pursuit.barred
        if barred != self._barred:
            self._barred = barred
            if barred:
                _log.warning(
                    "not streams, and so not read until they are: %s; remove these keys from Redis",
                    ", ".join(self._keys.stream(symbol) for symbol in barred)[:500],
                )
        return runs

    async def _settle(self, link: Link) -> None:
        asked = [(symbol, wish, questions(self._keys, symbol, wish)) for symbol, wish in self._wishes.items()]
        commands: list[Command] = [command for _, _, parts in asked for command in parts]
        replies = await link.ask(*commands)
        for reply in replies:
            if isinstance(reply, Exception) and not tells_of_key(reply):
                raise reply
        answers = iter(replies)
        for symbol, wish, parts in asked:
            place = settle(symbol, wish, [next(answers) for _ in parts])
            if self._wishes.pop(symbol, None) is None:
                continue  # removed while we asked
            track = self._pursuit.follow(symbol, place)
            if place.quote is not None:
                # Until the quote is handed out, a saved position must still lead to it.
                track.after = str(before(place.after))
                self._snapshots.append((track, place.quote))

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _taken_over(self) -> BusError:
        return BusError(f"{self!r} is read by another loop: call quotes() again for a second one")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _skipped(self, error: BadEntry) -> None:
        self._unreadable += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._unreadable_logged_at_s >= LOG_EVERY_S:
            self._unreadable_logged_at_s = now_s
            _log.warning(
                "skipped: %s (%d so far; told at most once a minute)", str(error)[:300], self._unreadable
            )


def decode_entry(symbol: str, entry_id: str, fields: list[bytes]) -> Quote | Gap:
    """The quote or gap of one raw entry (field, value, field, value, ...); `BadEntry` if it is neither."""
    if fields[0] == _QUOTE:
        return decode_quote(symbol, entry_id, fields[1])
    values = dict(zip(fields[::2], fields[1::2], strict=False))
    if _QUOTE in values:
        return decode_quote(symbol, entry_id, values[_QUOTE])
    if _GAP in values:
        return decode_gap(symbol, entry_id, values[_GAP])
    raise BadEntry(symbol, entry_id, f"it has neither a {QUOTE_FIELD!r} nor a {GAP_FIELD!r} field")
