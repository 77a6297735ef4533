"""Where history from REST ends and history from the stream begins, without a hole or a repeat between them.

Decides which stretch REST is to fill before an entry of the stream, and which quotes have been handed out already.
Must never ask either of them. Entry ids are the measure: what was trimmed had smaller ids than the first entry
there is, and an id stands for a venue time, or for a later moment where the quote came out of order. So REST is
asked up to and with the time of that first id, and what the stream then repeats is left out.
"""

from collections import deque
from typing import Final, NamedTuple

from wire import EntryId, Quote

MEMORY: Final = 10_000
"""Quotes that are remembered for comparison: ties, and what came out of order, lie far closer together."""
LOOK_BACK_NS: Final = 1_000_000_000
"""How far behind its place in the stream a trimmed quote may be dated, because it came out of order."""


class _Content(NamedTuple):
    """What makes two quotes the same one."""

    time_ns: int
    bid_price: float | None
    bid_size: int | float | None
    bid_exchange: str | None
    ask_price: float | None
    ask_size: int | float | None
    ask_exchange: str | None
    conditions: tuple[str, ...]
    tape: str | None


class Stretch(NamedTuple):
    """Venue time from `start_ns` up to, not including, `end_ns`, in nanoseconds since the epoch."""

    start_ns: int
    end_ns: int


class Seam:
    """One joined history from `start_ns` up to, not including, `end_ns` (None: up to where `ends_with` says)."""

    def __init__(self, start_ns: int, end_ns: int | None) -> None:
        self._start_ns: Final = start_ns
        self._end_ns = end_ns
        self._told_ns = start_ns
        """Every quote of an earlier venue time has been told, as far as anybody has it."""
        self._filled_ns = start_ns
        """Where REST's part ends: before this, the stream may repeat it."""
        self._last: EntryId | None = None
        self._order: Final[deque[_Content]] = deque()
        self._known: Final[set[_Content]] = set()

    def lacking(self, page: EntryId | None, first: EntryId | None, now_ns: int) -> Stretch | None:
        """What REST is to fill before the page of the stream that was just read; None for nothing.

        `page` is where that begins, None where it is empty. `first` is the first entry that the stream holds,
        looked up after it; None when it holds none. Without either, REST is to fill everything up to `now_ns`.
        """
        if first is not None and (
            first.time_ns < self._told_ns or (self._last is not None and first <= self._last)
        ):
            # Trimming takes the oldest first, so nothing behind our place is gone.
            return None
        follows = page or first
        end_ns = now_ns if follows is None else follows.time_ns + 1
        if self._end_ns is not None:
            end_ns = min(end_ns, self._end_ns)
        if end_ns <= self._told_ns:
            return None
        return Stretch(self._told_ns if self._last is None else self._looked_back_ns(), end_ns)

    def ends_with(self, last: EntryId) -> None:
        """Nothing behind this entry of the stream is asked for."""
        self._end_ns = last.time_ns + 1

    def filled(self, stretch: Stretch) -> None:
        """REST has told all of this stretch."""
        self._told_ns = self._filled_ns = stretch.end_ns

    def passed(self, entry_id: EntryId) -> None:
        """The stream was read up to and with this entry; ties with it may follow, and be trimmed."""
        self._last = entry_id
        self._told_ns = max(self._told_ns, entry_id.time_ns)

    def _looked_back_ns(self) -> int:
        # No further than memory goes, or quotes would come twice.
        full = len(self._order) >= MEMORY
        remembered_ns = self._order[0].time_ns + 1 if full else self._start_ns
        return max(self._start_ns, remembered_ns, self._told_ns - LOOK_BACK_NS)

    def lets_pass(self, quote: Quote, *, is_rest: bool) -> bool:
        """Whether this quote was not handed out before by the other source; it counts as handed out from now on."""
        content = _Content(
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
            # Behind the seam the stream is alone, and two equal quotes are two.
            return not is_rest and quote.time_ns >= self._filled_ns
        self._known.add(content)
        self._order.append(content)
        if len(self._order) > MEMORY:
            self._known.discard(self._order.popleft())
        return True
