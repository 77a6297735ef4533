"""Past entries of one stream, page by page, and what REST fills where the stream no longer reaches.

Decides nothing about the seam (`seam` does). Must never hold more than one page of the stream, ask REST more than
once for each, nor know who answers for REST.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Protocol

from consumers.command import Command, Reply
from consumers.reading.entry import decode_entry
from consumers.reading.gaps import TRIMMED
from consumers.reading.seam import Seam, Stretch
from consumers.reading.start import before, marker_of_hole, markers_before
from wire import BadEntry, EntryId, Gap, Quote, entry_id_at

_log = logging.getLogger(__name__)

PAGE: Final = 1_000
"""Entries per XRANGE."""


class PastQuotes(Protocol):
    """Whoever has quotes of any time, such as `AlpacaRest`."""

    def quotes(self, symbol: str, start: int, end: int) -> AsyncGenerator[Quote, None]:
        """Those from `start` up to, not including, `end`, in nanoseconds since the epoch, oldest first."""


class History:
    """One walk through the past of a symbol. `ask` is that of the bus's shared link."""

    def __init__(
        self,
        ask: Callable[..., Awaitable[list[Reply]]],
        symbol: str,
        stream: str,
        start_ns: int,
        end_ns: int | None,
        rest: PastQuotes | None,
    ) -> None:
        self._ask: Final = ask
        self._symbol: Final = symbol
        self._stream: Final = stream
        self._rest: Final = rest
        self._seam: Final = Seam(start_ns, end_ns)
        self._before: Final = before(entry_id_at(start_ns))
        self._low = str(entry_id_at(start_ns))
        self._high = None if end_ns is None else str(before(entry_id_at(end_ns)))

    async def items(self) -> AsyncGenerator[Quote | Gap, None]:
        """Quotes and gaps, oldest first. Raises `BusUnavailable`, and what REST raises."""
        (markers,) = await self._ask(markers_before(self._stream, self._before))
        marker = marker_of_hole(self._symbol, self._before, markers)
        if marker is not None:
            self._low = str(marker)
        last: EntryId | None = None
        while True:
            entries, first = await self._page()
            stretch = self._seam.lacking(
                EntryId.parse(entries[0][0]) if entries else None, first, time.time_ns()
            )
            if stretch is not None and self._rest is not None:
                # The page is kept meanwhile. A stream that is trimmed faster than REST answers would have lost it
                # again when looked at anew, and again, with a call of the account each time.
                async with aclosing(self._fill(self._rest, stretch)) as quotes:
                    async for quote in quotes:
                        yield quote
                self._seam.filled(stretch)
            elif stretch is not None and last is not None:
                yield Gap(
                    symbol=self._symbol,
                    id=None,
                    from_ns=last.time_ns,
                    to_ns=EntryId.parse(entries[0][0]).time_ns if entries else stretch.end_ns - 1,
                    reason=TRIMMED,
                )
            for raw_id, fields in entries:
                last = EntryId.parse(raw_id)
                self._seam.passed(last)
                item = self._decoded(raw_id.decode(), fields)
                if item is not None:
                    yield item
            if len(entries) < PAGE or str(last) == self._high:
                return
            self._low = f"({last}"

    async def _page(self) -> tuple[list[tuple[bytes, list[bytes]]], EntryId | None]:
        page: Command = ("XRANGE", self._stream, self._low, self._high or "+", "COUNT", PAGE)
        # The first entry is looked up after the page: if it is not behind our place then, it was not before. So is
        # the last, which bounds the walk: what a busy stream gets from now on would keep it going for ever.
        ends: list[Command] = [("XRANGE", self._stream, "-", "+", "COUNT", 1)]
        if self._high is None:
            ends.append(("XREVRANGE", self._stream, "+", "-", "COUNT", 1))
        entries, first, *last = await self._ask(page, *ends)
        if last and last[0]:
            end = EntryId.parse(last[0][0][0])
            self._high = str(end)
            self._seam.ends_with(end)
        return entries, EntryId.parse(first[0][0]) if first else None

    async def _fill(self, rest: PastQuotes, stretch: Stretch) -> AsyncGenerator[Quote, None]:
        async with aclosing(rest.quotes(self._symbol, stretch.start_ns, stretch.end_ns)) as quotes:
            async for quote in quotes:
                is_asked = stretch.start_ns <= quote.time_ns < stretch.end_ns
                if is_asked and self._seam.lets_pass(quote, is_rest=True):
                    yield quote

    def _decoded(self, entry_id: str, fields: list[bytes]) -> Quote | Gap | None:
        try:
            item = decode_entry(self._symbol, entry_id, fields)
        except BadEntry as error:
            _log.warning("skipped: %s", str(error)[:300])
            return None
        if self._rest is None or isinstance(item, Gap) or self._seam.lets_pass(item, is_rest=False):
            return item
        return None
