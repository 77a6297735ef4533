"""Quotes of any time, page by page: the past before a symbol's first quote on the websocket, then the record.

Decides where one ends and the other begins, and what a page holds: the pages of a range, laid end to end, are the
range. Must never know how a call arrived, nor the clock.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from simulator.frames import SimQuote
from simulator.rest.asking import Place, Range
from simulator.rest.past import Past
from simulator.rest.record import Record

T = TypeVar("T")


class History:
    """What was ever quoted. `now_ns` is the present, beyond which the past knows nothing.

    `past_ends_ns` is where the invented past ends in any case: at the first row of a tape that keeps its own times,
    which would otherwise be older than what was before it.
    """

    def __init__(self, record: Record, seed: int = 0) -> None:
        self.record = record
        self.past_ends_ns: int | None = None
        self._seed = seed

    def past(self, symbol: str) -> Past:
        """What was before the record."""
        return Past(symbol, self._seed)

    def past_until_ns(self, symbol: str, now_ns: int) -> int:
        """The first nanosecond that is no longer the past's."""
        ends = (now_ns + 1, self.record.first_ns(symbol), self.past_ends_ns)
        return min(end_ns for end_ns in ends if end_ns is not None)

    def latest(self, symbol: str, now_ns: int) -> SimQuote | None:
        """The newest quote of a symbol; None when there never was one."""
        recorded = self.record.newest(symbol)
        if recorded is not None:
            return recorded
        return next(self.past(symbol).backwards(0, self.past_until_ns(symbol, now_ns) - 1), None)

    def quotes(
        self, symbol: str, from_ns: int, to_ns: int, now_ns: int, *, newest_first: bool = False
    ) -> Iterator[SimQuote]:
        """Those with times from `from_ns` to `to_ns`, both included, in order of time."""
        past, until_ns = self.past(symbol), min(to_ns, self.past_until_ns(symbol, now_ns) - 1)
        recorded = self.record.quotes(symbol, from_ns, to_ns)
        if newest_first:
            yield from reversed(recorded)
            yield from past.backwards(from_ns, until_ns)
        else:
            yield from past.quotes(from_ns, until_ns)
            yield from recorded


def page(
    asked: Range, read: Callable[[str, Range], Iterable[T]], time_of: Callable[[T], int]
) -> tuple[dict[str, list[T]], str | None]:
    """One page, by symbol, and the token of the next one; None when this is the last.

    `read` gives the items of one symbol in the range's order, the range narrowed to what is left of it.
    """
    found: dict[str, list[T]] = {}
    left, place, last = asked.limit, asked.place, asked.place
    for symbol in asked.symbols:
        if place is not None and symbol < place.symbol:
            continue
        resumed = place if place is not None and symbol == place.symbol else None
        items = iter(read(symbol, _narrowed(asked, resumed)))
        at_ns, nth = (resumed.t_ns, resumed.nth) if resumed is not None else (None, 0)
        for item in islice(_skipped(items, resumed, time_of), left + 1):
            if not left:
                assert last is not None
                return found, last.token()
            t_ns = time_of(item)
            at_ns, nth = t_ns, nth + 1 if t_ns == at_ns else 1
            last = Place(symbol, t_ns, nth, asked.end_ns)
            found.setdefault(symbol, []).append(item)
            left -= 1
    return found, None


def _narrowed(asked: Range, resumed: Place | None) -> Range:
    if resumed is None:
        return asked
    if asked.newest_first:
        return replace(asked, end_ns=min(asked.end_ns, resumed.t_ns))
    return replace(asked, start_ns=max(asked.start_ns, resumed.t_ns))


def _skipped(items: Iterator[T], resumed: Place | None, time_of: Callable[[T], int]) -> Iterator[T]:
    seen = 0
    for item in items:
        if resumed is not None and seen < resumed.nth and time_of(item) == resumed.t_ns:
            seen += 1
            continue
        yield item
