"""What one look of the demo found, and how it reads as a line.

Decides the plain form for pipes; the table for terminals is `demo_table`. Must never read anything itself.
"""

import time
from dataclasses import dataclass, field
from typing import Final

from wire import Quote
from wire.quality import time_ns_of

MAX_DIGITS: Final = 20


@dataclass(slots=True)
class View:
    """What one refresh read from Redis; `at_s` is monotonic, `rates` are quotes per second by symbol, `rate` that
    of all symbols together."""

    at_s: float
    status: dict[str, str]
    states: dict[str, str]
    quotes: dict[str, Quote]
    totals: dict[str, int]
    rates: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0

    @property
    def live(self) -> int:
        """How many symbols are live."""
        return sum(state == "live" for state in self.states.values())

    def compare(self, older: "View") -> None:
        """Work out the rates since an older view."""
        for symbol, total in self.totals.items():
            if symbol in older.totals:
                self.rates[symbol] = max(0, total - older.totals[symbol]) / (self.at_s - older.at_s)
        # The daemon's own count covers symbols that are not shown; it is as old as its heartbeat.
        elapsed_s = _beat_s(self.status) - _beat_s(older.status)
        stored, before = _count(self.status, "stored"), _count(older.status, "stored")
        if stored is not None and before is not None and elapsed_s > 0:
            self.rate = max(0, stored - before) / elapsed_s
        else:
            self.rate = sum(self.rates.values())

    def age_ms(self, symbol: str, now_ns: int) -> float:
        """How old a symbol's newest quote is, by the venue's time."""
        return (now_ns - self.quotes[symbol].time_ns) / 1e6


def line(view: View) -> str:
    """One line of the plain form."""
    now_ns = time.time_ns()
    shown = "  ".join(
        f"{symbol} {_price(quote.bid_price)}/{_price(quote.ask_price)} {view.age_ms(symbol, now_ns):.0f} ms old"
        for symbol, quote in sorted(view.quotes.items())[:3]
    )
    return (
        f"{time.strftime('%H:%M:%S')} {view.status.get('state', 'starting'):<10} "
        f"{view.live}/{len(view.states)} live  {view.rate:6.0f} quotes/s  "
        f"stored {view.status.get('stored', '0')}  {shown}"
    )


def _beat_s(status: dict[str, str]) -> float:
    return (time_ns_of(status.get("heartbeat")) or 0) / 1e9


def _count(status: dict[str, str], name: str) -> int | None:
    text = status.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < MAX_DIGITS else None


def _price(price: float | None) -> str:
    return "-" if price is None else f"{price:.2f}"
