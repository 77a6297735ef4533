"""The vendor's side: running numbers at a steady rate, and who was told of each.

Decides what counts as sent: a quote that went to a session which had its symbol. Must never know which fault is
under way. A symbol that was out of the session's set for a while, or whose session is new, begins a new stretch.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from simulator import AlpacaSimulator, SimQuote
from tests.scenario.checker import Checker

TICK_S: Final = 0.01
STEP_NS: Final = 1000
"""Between two quotes of one symbol that leave at the same time."""


class Sending:
    """`rate` quotes a second over all symbols, while `run` runs. `sent` counts them."""

    def __init__(
        self, vendor: AlpacaSimulator, checker: Checker, symbols: Sequence[str], rate: float
    ) -> None:
        self._vendor = vendor
        self._checker = checker
        self.rate = rate
        self.sent = 0
        self.last_sent_s = 0.0
        self._next = dict.fromkeys(symbols, 1)
        self._session = dict.fromkeys(symbols, 0)
        """The session that has the symbol; 0 for none."""
        self._stretch = dict.fromkeys(symbols, 0)

    @property
    def numbers(self) -> dict[str, int]:
        """The highest number sent, by symbol."""
        return {symbol: after - 1 for symbol, after in self._next.items()}

    async def run(self) -> None:
        """Never returns. What could not be sent in time, because nobody listened, is not made up for."""
        due = 0.0
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            # A stall of this process is no reason for a burst of any size.
            due += self.rate * min(now_s - before_s, 0.5) / len(self._next)
            before_s = now_s
            self.send(int(due))
            due -= int(due)

    def send(self, count: int) -> None:
        """So many quotes of each symbol that somebody listens to, as one frame."""
        links = [link for link in self._vendor.connections if link.receives]
        session = links[-1] if links else None
        wanted = session.symbols if session is not None else frozenset()
        now_ns = time.time_ns()
        quotes: list[SimQuote] = []
        listening = [symbol for symbol in self._next if symbol in wanted]
        for symbol in self._next:
            if symbol not in wanted:
                self._session[symbol] = 0
        for n in range(count):
            quotes += [_quote(symbol, self._next[symbol] + n, now_ns + n * STEP_NS) for symbol in listening]
        if session is None or not quotes or self._vendor.send(quotes) != len(quotes):
            return
        self.last_sent_s = time.monotonic()
        for symbol in listening:
            if self._session[symbol] != session.id:
                self._session[symbol] = session.id
                self._stretch[symbol] += 1
            self._checker.sent(symbol, self._next[symbol], count, self._stretch[symbol])
            self._next[symbol] += count
        self.sent += len(quotes)


def _quote(symbol: str, number: int, time_ns: int) -> SimQuote:
    return SimQuote(symbol, time_ns, 100.25, number, 100.27, 200, "V", "N", ("R",), "C")
