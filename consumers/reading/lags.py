"""Asks how far behind readers are, of any number of streams at once.

Decides how many questions go together; what follows from the answers is `lag`'s word. Must never know who reads, or
why it is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from consumers.command import Command
from consumers.reading.gaps import read_facts
from consumers.reading.lag import COUNT_MAX, PAGE, Lag, Span, assess
from consumers.reading.pursuit import LOOKS_AT_ONCE
from consumers.reading.track import Track
from consumers.shared_link import SharedLink
from wire import EntryId

PAGES_AT_ONCE: Final = 20
"""Pages of entries that are counted in one reply: some megabytes."""


class Standing(NamedTuple):
    """A reader in one stream, and the last entry that it has handed out."""

    track: Track
    position: EntryId


@dataclass(slots=True)
class _Count:
    """What is to be counted entry by entry, and how far that has come."""

    lag: Lag
    key: bytes
    span: Span
    found: int = 0

    def add(self, page: Sequence[Any]) -> Lag | None:
        """The lag with the entries of all pages, if this one was the last."""
        self.found += len(page)
        is_last = len(page) < PAGE
        if not is_last and self.found < COUNT_MAX:
            self.span = Span(EntryId.parse(page[-1][0]), self.span.high)
            return None
        return Lag(self.lag.symbol, self.lag.entries + self.found, is_exact=is_last, ms=self.lag.ms)


async def lags_of(shared: SharedLink, standings: Sequence[Standing]) -> dict[str, Lag]:
    """The lag by symbol, each symbol standing there once. Raises `BusUnavailable`, `BusClosed`."""
    lags: dict[str, Lag] = {}
    counts: list[_Count] = []
    for start in range(0, len(standings), LOOKS_AT_ONCE):
        some = standings[start : start + LOOKS_AT_ONCE]
        looks: list[Command] = [("XINFO", "STREAM", standing.track.key) for standing in some]
        # In a transaction the error for a stream that is missing concerns that one alone.
        *_, answers = await shared.ask(("MULTI",), *looks, ("EXEC",))
        for (track, position), answer in zip(some, answers, strict=True):
            lag, span = assess(track, position, read_facts(answer))
            lags[track.symbol] = lag
            if span is not None:
                counts.append(_Count(lag, track.key, span))
    while counts:
        now, counts = counts[:PAGES_AT_ONCE], counts[PAGES_AT_ONCE:]
        pages = await shared.ask(
            *(("XRANGE", c.key, f"({c.span.low}", str(c.span.high), "COUNT", PAGE) for c in now)
        )
        for count, page in zip(now, pages, strict=True):
            whole = count.add(page)
            if whole is None:
                counts.append(count)
            else:
                lags[whole.symbol] = whole
    return lags
