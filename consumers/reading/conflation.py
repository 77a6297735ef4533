"""Only the newest quote of each symbol, with an account of those it stands for.

Decides what is passed over and what must be told all the same: gaps are never conflated away, only joined when
there are too many. Must never ask for entries, nor know how long they wait. Memory is bounded: one quote and at
most `GAPS_MAX` gaps per symbol.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from consumers.reading.entry import QUOTE, decode_entry
from consumers.reading.track import Run, Track
from wire import BadEntry, EntryId, Gap, Quote, decode_quote

GAPS_MAX: Final = 64


class Newest(msgspec.Struct, frozen=True):
    """The newest quote of a symbol, and what was passed over since the one handed out before it.

    `conflated` is the number of quotes passed over, `from_ns` and `to_ns` the venue times of the first and the
    last of them by their entry ids, in nanoseconds since the epoch, UTC; None when there is none.
    """

    quote: Quote
    conflated: int
    from_ns: int | None
    to_ns: int | None

    @property
    def symbol(self) -> str:
        """The symbol of the quote."""
        return self.quote.symbol


@dataclass(slots=True)
class _Pending:
    track: Track
    position: str
    """The id after which a resume must read on: that of the last item handed out."""
    gaps: list[tuple[Gap, str]] = field(default_factory=list)
    """Each with the position behind it."""
    gaps_before: int = 0
    """How many of them stand before the quote."""
    quote: Quote | None = None
    conflated: int = 0
    from_ns: int | None = None
    to_ns: int | None = None


class Conflation:
    """What waits to be handed over; symbols in the order in which they began to wait."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self.unreadable: list[BadEntry] = []
        """Entries found to be no quote, for the caller to count and clear. Those passed over are not looked at."""

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> the id of the last item handed out, for the symbols of which something waits."""
        return {symbol: pending.position for symbol, pending in self._pending.items()}

    def drop(self, symbol: str) -> None:
        """Nothing of this symbol is to be handed over."""
        self._pending.pop(symbol, None)

    def take_snapshot(self, track: Track, quote: Quote) -> None:
        """Begin with a quote of the cache; the position comes to stand at it."""
        if not track.dropped:
            self._pending[track.symbol] = _Pending(track, track.after, quote=quote)
            track.move_to(str(quote.id))

    def take(self, run: Run) -> None:
        """What a read brought. The track moves on at once, so that the next read brings what follows."""
        track, gap, entries, after = run
        if track.dropped:
            return
        pending = self._pending.get(track.symbol) or _Pending(track, track.after)
        if gap is not None:
            track.move_to(after or track.after)
            self._add_gap(pending, gap, track.after)
        segment: list[Any] = []
        for entry in entries:
            if entry[1][0] == QUOTE:
                segment.append(entry)
                continue
            self._pass_over(pending, segment)
            segment = []
            self._take_other(pending, entry)
        self._pass_over(pending, segment)
        if entries:
            track.move_to(entries[-1][0].decode())
        if pending.gaps or pending.quote is not None:
            self._pending[track.symbol] = pending

    def next(self) -> Newest | Gap:
        """The next item; there must be one."""
        symbol, pending = next(iter(self._pending.items()))
        quote = pending.quote
        item: Newest | Gap
        if quote is None or pending.gaps_before:
            item, pending.position = pending.gaps.pop(0)
            pending.gaps_before = max(pending.gaps_before - 1, 0)
        else:
            item = Newest(quote, pending.conflated, pending.from_ns, pending.to_ns)
            pending.position = str(quote.id)
            pending.quote, pending.conflated, pending.from_ns, pending.to_ns = None, 0, None, None
        if not pending.gaps and pending.quote is None:
            del self._pending[symbol]
        return item

    def _pass_over(self, pending: _Pending, entries: list[Any]) -> None:
        """All of these quotes but the newest one that can be read."""
        symbol = pending.track.symbol
        for k in range(len(entries) - 1, -1, -1):
            raw_id, fields = entries[k]
            try:
                quote = decode_quote(symbol, raw_id.decode(), fields[1])
            except BadEntry as error:
                self.unreadable.append(error)
                continue
            if k:
                self._conflate(pending, entries[0][0], k, entries[k - 1][0], quote)
            else:
                self._conflate(pending, None, 0, None, quote)
            return

    def _take_other(self, pending: _Pending, entry: list[Any]) -> None:
        entry_id = entry[0].decode()
        try:
            item = decode_entry(pending.track.symbol, entry_id, entry[1])
        except BadEntry as error:
            self.unreadable.append(error)
            return
        if isinstance(item, Gap):
            self._add_gap(pending, item, entry_id)
        else:
            self._conflate(pending, None, 0, None, item)

    @staticmethod
    def _conflate(
        pending: _Pending, first: bytes | None, count: int, last: bytes | None, quote: Quote
    ) -> None:
        """Put this quote in the place of the one that waits and of so many between them."""
        old = None if pending.quote is None else pending.quote.id
        from_id, to_id = old or first, last or old
        if from_id is not None and to_id is not None:
            if pending.from_ns is None:
                pending.from_ns = EntryId.parse(from_id).time_ns
            pending.to_ns = EntryId.parse(to_id).time_ns
        pending.conflated += count + (pending.quote is not None)
        pending.quote = quote
        pending.gaps_before = len(pending.gaps)

    @staticmethod
    def _add_gap(pending: _Pending, gap: Gap, position: str) -> None:
        if len(pending.gaps) >= GAPS_MAX:
            older, _ = pending.gaps.pop()
            pending.gaps_before = min(pending.gaps_before, len(pending.gaps))
            gap = join(older, gap)
        pending.gaps.append((gap, position))


def join(older: Gap, newer: Gap) -> Gap:
    """One gap for two of a symbol, with the reason of the first and the id of the second."""
    known = older.missing is not None and newer.missing is not None
    return Gap(
        symbol=newer.symbol,
        id=newer.id,
        from_ns=min(older.from_ns, newer.from_ns),
        to_ns=max(older.to_ns, newer.to_ns),
        reason=older.reason,
        epoch=newer.epoch,
        missing=(older.missing or 0) + (newer.missing or 0) if known else None,
    )
