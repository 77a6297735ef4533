"""Latest-only: the newest quote of each symbol, handed over when the strategy asks for the next.

Decides when what it has read is too long ago to be handed over as the newest. Must never run in the background: a
strategy that asks for nothing costs nothing, and finds the newest all the same when it comes back.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from consumers.reading.conflation import Conflation, Newest
from consumers.reading.freshness import too_old
from consumers.reading.reader import Reader
from consumers.reading.source import Source
from consumers.reading.stream import Attendance
from wire import Gap

READ_AGAIN_S: Final = 0.02
"""While others wait, a quote that was read longer ago than this may no longer be the newest."""


class NewestStream(Reader[Newest | Gap]):
    """The newest quote of each symbol as `Newest`, and gaps; to be read with `async for`; made by `Bus.newest`.

    Symbols take turns in the order in which something new came. No quote is handed over when a newer one of its
    symbol was in Redis some tens of milliseconds before. When far behind (`start="earliest"`) it reads up to
    the present before it hands anything over. A gap comes before the first quote after it that is handed over;
    many gaps of one symbol (more than 64) that wait together are joined.

    Leaving the loop closes the connection; another loop over the same object goes on where it stood. After a resume
    by saved positions, `conflated` counts from the last item handed out, be it quote or gap.
    """

    def __init__(
        self,
        source: Source,
        symbols: tuple[object, ...],
        start: object,
        *,
        max_age_s: float | None = None,
        attendance: Attendance | None = None,
    ) -> None:
        super().__init__(source, symbols, start, max_age_s=max_age_s, attendance=attendance)
        self._conflation: Final = Conflation()

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> entry id after which reading goes on: that of the last item handed out.

        Save it, and pass it as `start` later: no newest quote and no gap is missed, and none comes twice. A
        symbol whose start Redis has not yet been asked for is absent.
        """
        return {**super().positions, **self._conflation.positions}

    def _forget(self, symbol: str) -> None:
        super()._forget(symbol)
        self._conflation.drop(symbol)

    async def _steps(self) -> AsyncGenerator[Newest | Gap | None, None]:
        turn = await self._enter()
        now_s = asyncio.get_running_loop().time
        waiting = self._conflation
        read_at = now_s() - 2 * READ_AGAIN_S
        try:
            while not self._source.is_closed:
                if not waiting or now_s() - read_at > READ_AGAIN_S:
                    await self._catch_up()
                    read_at = now_s()
                    if not waiting or self._source.is_closed:
                        if self._source.is_due:
                            yield None
                        continue
                yield self._within_age(waiting.next())
                if turn != self._turn:
                    raise self._taken_over()
        finally:
            await self._leave(turn)

    async def _catch_up(self) -> None:
        is_behind = True
        while is_behind and not self._source.is_closed:
            runs = await self._source.next_runs(wait=not self._conflation)
            for track, quote in self._source.snapshots:
                self._conflation.take_snapshot(track, quote)
            self._source.snapshots.clear()
            for run in runs:
                self._conflation.take(run)
            for error in self._conflation.unreadable:
                self._skipped(error)
            self._conflation.unreadable.clear()
            is_behind = self._source.pursuit.is_behind

    def _within_age(self, item: Newest | Gap) -> Newest | Gap:
        if self._guard is None or isinstance(item, Gap):
            return item
        quote = item.quote
        if self._guard.is_fresh(quote, self._source.now_ns()):
            return item
        # With it goes what it stood for.
        from_ns = quote.time_ns if item.from_ns is None else min(item.from_ns, quote.time_ns)
        return too_old(quote.symbol, item.conflated + 1, from_ns, quote.time_ns)
