"""In which order symbols that only a lease asks for have their places: who is in stays in.

Decides from when each became live, and when it was first asked for. Must never know the limit, the vendor, or a
clock: unix times are arguments. Those that were live come first, in the order in which they became so, but for
those that were put out, who come behind them in the same order; then the others, in the order in which they came.
What came at once goes by name. A symbol keeps its rank until nobody wants it any more, through reconnections, and
through a restart as far as `quotes:subscriptions` remembers.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from wire import Symbol


class Earlier(NamedTuple):
    """What an earlier run wrote of a symbol; unix seconds. `live_since_s` is None when it was never live."""

    live_since_s: float | None
    since_s: float
    put_out_by: str | None


class Seniority:
    """The ranks of all symbols that are wanted, operators' too: one that they take back may still be leased."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._live: dict[str, int] = {}
        self._live_since_s: dict[str, float] = {}
        self._undated: list[str] = []
        self._count = 0

    def recall(self, earlier: Mapping[str, Earlier]) -> None:
        """Begin with what an earlier run knew; before anything else is told."""
        waiters = [(seen.since_s, symbol) for symbol, seen in earlier.items()]
        for _, symbol in sorted(waiters):
            self._asked[symbol] = self._next()
        were_live = [
            (seen.live_since_s, symbol) for symbol, seen in earlier.items() if seen.live_since_s is not None
        ]
        for live_since_s, symbol in sorted(were_live):
            self._live[symbol] = self._next()
            self._live_since_s[symbol] = live_since_s

    def wanted(self, symbols: Iterable[str]) -> None:
        """All that anybody wants now: newcomers get a rank, and what is wanted no more loses it."""
        now = frozenset(symbols)
        for gone in self._asked.keys() - now:
            del self._asked[gone]
            self._live.pop(gone, None)
            self._live_since_s.pop(gone, None)
        for symbol in sorted(now - self._asked.keys()):
            self._asked[symbol] = self._next()

    def live(self, symbols: Iterable[str]) -> bool:
        """The vendor has confirmed these; whether one of them is live for the first time."""
        new = sorted(symbol for symbol in symbols if symbol in self._asked and symbol not in self._live)
        for symbol in new:
            self._live[symbol] = self._next()
        self._undated += new
        return bool(new)

    def date(self, now_unix_s: float) -> None:
        """It is so late now, for those that became live since the last call."""
        for symbol in self._undated:
            if symbol in self._live:
                self._live_since_s.setdefault(symbol, now_unix_s)
        self._undated.clear()

    def was_live(self, symbol: str) -> bool:
        """Whether it has been live since it was first wanted."""
        return symbol in self._live

    def live_since_s(self, symbol: str) -> float | None:
        """When it became live for the first time, unix seconds; None when it was never live."""
        return self._live_since_s.get(symbol)

    def in_order(
        self, symbols: tuple[Symbol, ...], leased: frozenset[Symbol], put_out: AbstractSet[str] = frozenset()
    ) -> tuple[Symbol, ...]:
        """The same symbols in the order of their claim to a place: operators' as they come, then leased ones.

        `put_out` are those that had a place and wait for one now. Whoever was longer in than an operator's symbol
        would otherwise put it out when the operator gives it up and a strategy still reads it.
        """
        if not leased:
            return symbols
        rest = sorted((s for s in symbols if s in leased), key=lambda s: self._rank(s, s in put_out))
        return (*(s for s in symbols if s not in leased), *rest)

    def _rank(self, symbol: str, is_out: bool) -> tuple[bool, bool, int]:
        place = self._live.get(symbol)
        return (place is None, is_out, self._asked[symbol] if place is None else place)

    def _next(self) -> int:
        self._count += 1
        return self._count
