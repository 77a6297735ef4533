"""Where history from REST ends and history from the stream begins, without a hole or a repeat between them.

Decides which stretch REST is to fill before an entry of the stream, and which quotes have been handed out already.
Must never ask either of them. Entry ids are the measure: what was trimmed had smaller ids than the first entry there
is, and an id stands for a venue time, or for a later moment where the quote came out of order. So REST is asked up to
and with the time of that first id, and what the stream then repeats is left out.
"""

from collections import deque
from typing import Final, NamedTuple, TypeAlias

from wire import EntryId, Quote

MEMORY: Final = 10_000
"""Quotes that are remembered for comparison: ties, and what came out of order, lie far closer together."""

_Content: TypeAlias = tuple[object, ...]


class Stretch(NamedTuple):
    """Venue time from `start_ns` up to, not including, `end_ns`, in nanoseconds since the epoch."""

    start_ns: int
    end_ns: int


class Seam:
    """One joined history from `start_ns` up to, not including, `end_ns` (None: no end)."""

    def __init__(self, start_ns: int, end_ns: int | None) -> None:
        self._end_ns: Final = end_ns
        self._start_ns: Final = start_ns
        self._reached_ns = start_ns
        self._last: EntryId | None = None
        self._handed: Final[deque[_Content]] = deque()
        self._known: Final[set[_Content]] = set()

    def lacking(self, first: EntryId | None, now_ns: int) -> Stretch | None:
        """What REST is to fill before the stream is read on; None for nothing.

        `first` is the first entry that the stream holds now, None when it holds none. Where entries up to our place
        may have been trimmed, that is everything from there up to the first one; without any, up to `now_ns`.
        """
        if first is None:
            end_ns = now_ns if self._end_ns is None else self._end_ns
        elif self._last is not None and first <= self._last:
            return None
        else:
            end_ns = first.time_ns + 1
            if self._end_ns is not None:
                end_ns = min(end_ns, self._end_ns)
        return Stretch(self._reached_ns, end_ns) if end_ns > self._reached_ns else None

    def filled(self, stretch: Stretch) -> None:
        """REST has told all of this stretch."""
        # The last nanosecond stays open, because ties with the first entry may be trimmed next.
        self._reached_ns = max(self._reached_ns, stretch.end_ns - 1)

    def passed(self, entry_id: EntryId) -> None:
        """The stream was read up to and with this entry."""
        self._last = entry_id
        self._reached_ns = max(self._reached_ns, entry_id.time_ns)

    def is_new(self, quote: Quote) -> bool:
        """Whether this quote, of either source, was not handed out before; it counts as handed out from now on."""
        content = (
            quote.time_ns,
            quote.bid_price,
            quote.bid_size,
            quote.bid_exchange,
            quote.ask_price,
            quote.ask_size,
            quote.ask_exchange,
            quote.conditions or (),
            quote.tape,
        )
        if content in self._known:
            return False
        self._known.add(content)
        self._handed.append(content)
        if len(self._handed) > MEMORY:
            self._known.discard(self._handed.popleft())
        return True
