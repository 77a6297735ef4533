"""How old a quote is, and what becomes of one that is too old.

Decides what counts as age, and keeps account of what was withheld until it has been told. Must never read a
clock or ask a server: both clocks' readings are arguments.

Age is the server's time less the moment of receipt: the daemon and all readers may have clocks of their own, and
only that of the Redis server is the same for everybody.
"""

from dataclasses import dataclass
from typing import Any, Final

from wire import Gap, Quote

TOO_OLD: Final = "too_old"
RENEW_NS: Final = 5_000_000_000
"""How long a comparison with the server's clock is relied upon."""
_DRIFT_PER_NS: Final = 0.000_5
"""What two clocks of the same minute may drift apart, generously."""


def server_time_ns(reply: Any) -> int:
    """Nanoseconds since the epoch in a reply of TIME, which has seconds and microseconds."""
    seconds, microseconds = reply
    return (int(seconds) * 1_000_000 + int(microseconds)) * 1_000


def received_ns(quote: Quote) -> int:
    """When the quote was received, nanoseconds since the epoch; its venue time where that is not known."""
    return quote.time_ns + (quote.receive_delay_us or 0) * 1_000


class ServerClock:
    """The server's time between two questions for it, by a local clock that never stops or jumps.

    It is never behind the server's, and ahead of it by at most a round trip: a quote is rather called too old
    than passed for fresh.
    """

    def __init__(self) -> None:
        self._ahead_ns: tuple[int, int] | None = None
        self._learnt_at_ns = 0

    def is_due(self, here_ns: int) -> bool:
        """Whether the server should be asked again."""
        return self._ahead_ns is None or here_ns - self._learnt_at_ns >= RENEW_NS

    def learn(self, server_ns: int, asked_ns: int, answered_ns: int) -> None:
        """The server said this time, at some moment between these two of the local clock."""
        low, high = server_ns - answered_ns, server_ns - asked_ns
        if self._ahead_ns is not None:
            drift = int((answered_ns - self._learnt_at_ns) * _DRIFT_PER_NS)
            narrow = max(low, self._ahead_ns[0] - drift), min(high, self._ahead_ns[1] + drift)
            # Where the two exclude each other one of the clocks was set, and only the later one counts.
            if narrow[0] <= narrow[1]:
                low, high = narrow
        self._ahead_ns, self._learnt_at_ns = (low, high), answered_ns

    def now_ns(self, here_ns: int) -> int:
        """The server's time, nanoseconds since the epoch, at this moment of the local clock."""
        assert self._ahead_ns is not None, "learn first"
        return here_ns + self._ahead_ns[1]


@dataclass(slots=True)
class _Withheld:
    position: str
    missing: int
    from_ns: int
    to_ns: int


class AgeGuard:
    """Withholds what is too old, and owes a gap for it to whoever comes to the symbol next."""

    def __init__(self, max_age_s: float) -> None:
        self._limit_ns: Final = int(max_age_s * 1e9)
        self._withheld: dict[str, _Withheld] = {}

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> the position before the first quote withheld that has not been told yet."""
        return {symbol: withheld.position for symbol, withheld in self._withheld.items()}

    def is_fresh(self, quote: Quote, now_ns: int) -> bool:
        """Whether it may be handed over at this time of the server."""
        return now_ns - received_ns(quote) <= self._limit_ns

    def withhold(self, quote: Quote, position: str) -> None:
        """Count a quote that is not handed over; `position` is the one before it."""
        time_ns = quote.time_ns
        withheld = self._withheld.get(quote.symbol)
        if withheld is None:
            self._withheld[quote.symbol] = _Withheld(position, 1, time_ns, time_ns)
        else:
            withheld.missing += 1
            withheld.from_ns = min(withheld.from_ns, time_ns)
            withheld.to_ns = max(withheld.to_ns, time_ns)

    @property
    def owing(self) -> list[str]:
        """The symbols for which a gap is owed."""
        return list(self._withheld)

    def owes(self, symbol: str) -> bool:
        """Whether a gap is owed for this symbol."""
        return symbol in self._withheld

    def settle(self, symbol: str) -> Gap:
        """The gap that is owed, and with that no more."""
        withheld = self._withheld.pop(symbol)
        return too_old(symbol, withheld.missing, withheld.from_ns, withheld.to_ns)

    def forget(self, symbol: str) -> None:
        """Nobody wants to hear of this symbol any more."""
        self._withheld.pop(symbol, None)


def too_old(symbol: str, missing: int, from_ns: int, to_ns: int) -> Gap:
    """The gap in the place of so many quotes, from the venue time of the first to that of the last."""
    return Gap(symbol=symbol, id=None, from_ns=from_ns, to_ns=to_ns, reason=TOO_OLD, missing=missing)
