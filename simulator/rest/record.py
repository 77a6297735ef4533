"""What the websocket has quoted in this run, as far back as is remembered.

Decides which quote is a symbol's newest and what is forgotten first. Must never know who listened, nor the clock.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from simulator.frames import SimQuote


class Record:
    """The latest `most` quotes of all symbols together, in the order they were handed over.

    `forgotten` counts those that had to go. A symbol's newest quote is never forgotten.
    """

    def __init__(self, most: int) -> None:
        self.forgotten = 0
        self.count = 0
        self._most: Final = most
        self._batches: deque[tuple[frozenset[str], Sequence[SimQuote]]] = deque()
        self._newest: dict[str, SimQuote] = {}
        self._first_ns: dict[str, int] = {}

    def note(self, symbols: frozenset[str], quotes: Sequence[SimQuote]) -> None:
        """These were handed over; `symbols` are those of the quotes."""
        newest = self._newest
        for quote in quotes:
            known = newest.get(quote.symbol)
            if known is None:
                self._first_ns[quote.symbol] = quote.t_ns
                newest[quote.symbol] = quote
            elif quote.t_ns >= known.t_ns:
                newest[quote.symbol] = quote
            elif quote.t_ns < self._first_ns[quote.symbol]:
                self._first_ns[quote.symbol] = quote.t_ns
        self._batches.append((symbols, quotes))
        self.count += len(quotes)
        while self.count > self._most:
            _, gone = self._batches.popleft()
            self.count -= len(gone)
            self.forgotten += len(gone)

    def newest(self, symbol: str) -> SimQuote | None:
        """The quote of the latest time; of several the one that came last."""
        return self._newest.get(symbol)

    def first_ns(self, symbol: str) -> int | None:
        """The earliest time of any quote of this symbol, remembered or not."""
        return self._first_ns.get(symbol)

    def quotes(self, symbol: str, from_ns: int, to_ns: int) -> list[SimQuote]:
        """Those with times from `from_ns` to `to_ns`, both included, by time; equal times as they came."""
        found = [
            quote
            for symbols, quotes in self._batches
            if symbol in symbols
            for quote in quotes
            if quote.symbol == symbol and from_ns <= quote.t_ns <= to_ns
        ]
        found.sort(key=_time)
        return found


def _time(quote: SimQuote) -> int:
    return quote.t_ns
