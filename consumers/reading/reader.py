"""What every way of following streams has in common: positions, the limit of age, and the lag.

Must never know how entries are asked for (`source` does) nor how they are handed over (`quotes` and `newest` do).
"""

from collections.abc import Hashable
from typing import Any, Final, TypeVar

from consumers.arguments import check_max_age_s
from consumers.reading.freshness import AgeGuard
from consumers.reading.lag import Lag
from consumers.reading.lags import Standing, lags_of
from consumers.reading.source import Source
from consumers.reading.start import parse_symbols
from consumers.reading.stream import Attendance, Stream
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
        return await lags_of(self._shared, standings_of(self, *parse_symbols(symbols) if symbols else ()))

    def _forget(self, symbol: str) -> None:
        if self._guard is not None:
            self._guard.forget(symbol)


def standings_of(reader: Reader[Any], *symbols: str) -> list[Standing]:
    """Where it stands in each of these symbols (all of them, if none is named); not for strategies."""
    positions = reader.positions
    tracks = [reader._source.pursuit.track(symbol) for symbol in symbols or positions]
    return [Standing(track, EntryId.parse(positions[track.symbol])) for track in tracks if track is not None]


def following_of(reader: Reader[Any], symbol: str) -> Hashable:
    """What stands for its following this symbol without a break until now, None for none; not for strategies."""
    # A symbol that is removed and added again has another track, whoever did it.
    return reader._source.pursuit.track(symbol)
