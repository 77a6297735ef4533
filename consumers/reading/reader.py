"""What every way of following streams has in common: symbols, positions, one loop at a time, and its end.

Decides who may read, and when a loop begins and ends for those who attend to it. Must never know how entries are
asked for (`source` does) nor how they are handed over (`quotes` and `newest` do).
"""

import asyncio
import logging
from types import TracebackType
from typing import Final, Protocol, Self

from consumers.errors import BusError
from consumers.link import Command
from consumers.reading.freshness import AgeGuard, check_max_age_s
from consumers.reading.gaps import read_facts
from consumers.reading.lag import COUNT_MAX, PAGE, Lag, Span, assess
from consumers.reading.pursuit import LOOKS_AT_ONCE, Track
from consumers.reading.source import Source
from consumers.reading.start import parse_starts, parse_symbols
from wire import BadEntry, EntryId

_log = logging.getLogger(__name__)

LOG_EVERY_S: Final = 60.0


class Attendance(Protocol):
    """Whoever must know which symbols are being read, such as a lease. No call may block or raise.

    A symbol is told when its place in its stream is known, and not before: whoever brings quotes about by it would
    otherwise have them written before the place where reading begins.
    """

    def began(self, symbols: frozenset[str]) -> None:
        """A loop begins to read these symbols."""

    def changed(self, added: frozenset[str], removed: frozenset[str]) -> None:
        """Symbols came or went while a loop reads."""

    def ended(self) -> None:
        """No loop reads any more; another may begin later."""


class Reader:
    """The common half of `QuoteStream` and `NewestStream`."""

    def __init__(
        self,
        source: Source,
        symbols: tuple[object, ...],
        start: object,
        *,
        max_age_s: float | None = None,
        attendance: Attendance | None = None,
    ) -> None:
        self._source: Final = source
        self._guard: Final = None if check_max_age_s(max_age_s) is None else AgeGuard(max_age_s or 0)
        if self._guard is not None:
            source.keep_time()
        self._attendance: Final = attendance
        self._is_attended = False
        self._turn = 0
        self._unreadable = 0
        self._unreadable_logged_at_s = -LOG_EVERY_S
        source.on_settled = self._settled
        source.begin(parse_starts(parse_symbols(symbols), start))

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> entry id after which reading goes on: that of the last item handed out.

        Save it, and pass it as `start` later: nothing is missed and nothing comes twice. A symbol whose start
        Redis has not yet been asked for is absent.
        """
        positions = self._source.pursuit.positions
        return positions if self._guard is None else {**positions, **self._guard.positions}

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that are followed now."""
        return self._source.symbols

    @property
    def unreadable(self) -> int:
        """Entries skipped because they were neither quote nor gap of this contract."""
        return self._unreadable

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to Redis at this moment; only a loop that runs has one."""
        return self._source.is_connected

    @property
    def failures(self) -> int:
        """Failures in a row since Redis answered last; 0 while it does."""
        return self._source.failures

    def add(self, *symbols: str, start: object = "now") -> None:
        """Follow more symbols, from the next read on (within half a second). One that is followed stays as it is.

        A lease on a symbol that begins `"now"` or with a `"snapshot"` is taken with that read, when its place is
        known: no quote that the lease brings about is missed. Raises `BadSymbol` and `BadStart`.
        """
        starts = parse_starts(parse_symbols(symbols), start)
        known = self.symbols
        added = {symbol: origin for symbol, origin in starts.items() if symbol not in known}
        self._source.begin(added)
        self._settled(self._source.settled.intersection(added))

    def remove(self, *symbols: str) -> None:
        """Follow these symbols no more, at once; one that is not followed is ignored. Raises `BadSymbol`."""
        removed = frozenset(parse_symbols(symbols)) & self.symbols
        for symbol in removed:
            self._source.drop(symbol)
            self._forget(symbol)
        if removed and self._is_attended and self._attendance is not None:
            self._attendance.changed(frozenset(), removed)

    async def lag(self, *symbols: str) -> dict[str, Lag]:
        """How far behind the strategy is, by symbol (all of them, if none is named); see `Lag`.

        Asked beside the reading, and so of use to a task other than the one that reads. A symbol that is not
        followed, or whose start Redis has not yet been asked for, is absent. Raises `BadSymbol`,
        `BusUnavailable`, `BusClosed`.
        """
        positions = self.positions
        wanted = parse_symbols(symbols) if symbols else list(positions)
        tracks = [track for symbol in wanted if (track := self._source.pursuit.track(symbol)) is not None]
        lags: dict[str, Lag] = {}
        for start in range(0, len(tracks), LOOKS_AT_ONCE):
            some = tracks[start : start + LOOKS_AT_ONCE]
            looks: list[Command] = [("XINFO", "STREAM", track.key) for track in some]
            # In a transaction the error for a stream that is missing concerns that one alone.
            *_, answers = await self._source.shared.ask(("MULTI",), *looks, ("EXEC",))
            for track, answer in zip(some, answers, strict=True):
                lag, span = assess(track, EntryId.parse(positions[track.symbol]), read_facts(answer))
                lags[track.symbol] = lag if span is None else await self._counted(track, lag, span)
        return lags

    async def _counted(self, track: Track, lag: Lag, span: Span) -> Lag:
        low, counted = span.low, 0
        while counted < COUNT_MAX:
            (page,) = await self._source.shared.ask(
                ("XRANGE", track.key, f"({low}", str(span.high), "COUNT", PAGE)
            )
            counted += len(page)
            if len(page) < PAGE:
                return Lag(lag.symbol, lag.entries + counted, is_exact=True, ms=lag.ms)
            low = EntryId.parse(page[-1][0])
        return Lag(lag.symbol, lag.entries + counted, is_exact=False, ms=lag.ms)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the iteration, wherever it waits, and close its connection. May be called again."""
        self._unattend()
        await self._source.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self.symbols)} symbols at {self._source.target.address}>"

    def _forget(self, symbol: str) -> None:
        """Hand nothing of this symbol out any more."""
        if self._guard is not None:
            self._guard.forget(symbol)

    async def _enter(self) -> int:
        """Begin a loop; its number, by which it finds out whether another has taken over."""
        self._source.check_process()
        self._source.shared.check_loop()
        if self._source.is_reading:
            raise self._taken_over()
        self._turn += 1
        turn = self._turn
        await self._source.rewind()
        if self._attendance is not None and not self._is_attended and not self._source.is_closed:
            self._is_attended = True
            self._attendance.began(self._source.settled)
        return turn

    def _settled(self, symbols: frozenset[str]) -> None:
        if symbols and self._is_attended and self._attendance is not None:
            self._attendance.changed(symbols, frozenset())

    async def _leave(self, turn: int) -> None:
        if turn == self._turn:
            self._unattend()
            await self._source.hang_up()

    def _unattend(self) -> None:
        if self._is_attended and self._attendance is not None:
            self._is_attended = False
            self._attendance.ended()

    def _taken_over(self) -> BusError:
        return BusError(f"{self!r} is read by another loop: ask the bus for a second stream")

    def _skipped(self, error: BadEntry) -> None:
        self._unreadable += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._unreadable_logged_at_s >= LOG_EVERY_S:
            self._unreadable_logged_at_s = now_s
            _log.warning(
                "skipped: %s (%d so far; told at most once a minute)", str(error)[:300], self._unreadable
            )
