"""What every way of following streams has in common: positions, the limit of age, and the lag.

Must never know how entries are asked for (`source` does) nor how they are handed over (`quotes` and `newest` do).
"""

from typing import Final, TypeVar

from consumers.command import Command
from consumers.reading.freshness import AgeGuard, check_max_age_s
from consumers.reading.gaps import read_facts
from consumers.reading.lag import COUNT_MAX, PAGE, Lag, Span, assess
from consumers.reading.pursuit import LOOKS_AT_ONCE
from consumers.reading.source import Source
from consumers.reading.start import parse_symbols
from consumers.reading.stream import Attendance, Stream
from consumers.reading.track import Track
from wire import EntryId

T = TypeVar("T")


class Reader(Stream[T]):
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
        super().__init__(source, source.shared, symbols, start, attendance=attendance)
        self._source: Final = source
        self._guard: Final = None if check_max_age_s(max_age_s) is None else AgeGuard(max_age_s or 0)
        if self._guard is not None:
            source.keep_time()

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> entry id after which reading goes on: that of the last item handed out.

        Save it, and pass it as `start` later: nothing is missed and nothing comes twice. A symbol whose start
        Redis has not yet been asked for is absent.
        """
        positions = self._source.pursuit.positions
        return positions if self._guard is None else {**positions, **self._guard.positions}

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
            *_, answers = await self._shared.ask(("MULTI",), *looks, ("EXEC",))
            for track, answer in zip(some, answers, strict=True):
                lag, span = assess(track, EntryId.parse(positions[track.symbol]), read_facts(answer))
                lags[track.symbol] = lag if span is None else await self._counted(track, lag, span)
        return lags

    async def _counted(self, track: Track, lag: Lag, span: Span) -> Lag:
        low, counted = span.low, 0
        while counted < COUNT_MAX:
            (page,) = await self._shared.ask(("XRANGE", track.key, f"({low}", str(span.high), "COUNT", PAGE))
            counted += len(page)
            if len(page) < PAGE:
                return Lag(lag.symbol, lag.entries + counted, is_exact=True, ms=lag.ms)
            low = EntryId.parse(page[-1][0])
        return Lag(lag.symbol, lag.entries + counted, is_exact=False, ms=lag.ms)

    def _forget(self, symbol: str) -> None:
        if self._guard is not None:
            self._guard.forget(symbol)
