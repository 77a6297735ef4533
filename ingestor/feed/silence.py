"""Which symbols have gone without a quote for too long.

Decides that from marks that change with each quote of a symbol (the venue's time of the last one will do), seen
every few seconds. Must never know the clock, nor what a quote is: a tape of last year is as good as a live market.
"""

from collections.abc import Mapping
from typing import Final

_NEW: Final = object()


class SilentSymbols:
    """Remembers each symbol's mark, and when it first saw that one. `limit_s` 0 looks at nothing."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._marks: Mapping[str, int | None] = {}
        self._since_s: dict[str, float] = {}
        self.quiet: frozenset[str] = frozenset()
        self.oldest_s = 0.0

    def look(self, now_s: float, marks: Mapping[str, int | None]) -> None:
        """The marks of all symbols that are live now; one that was not among them before begins anew."""
        if not self._limit_s:
            return
        before, since_s = self._marks, self._since_s
        for symbol, mark in marks.items():
            if before.get(symbol, _NEW) != mark:
                since_s[symbol] = now_s
        if len(since_s) != len(marks):
            self._since_s = since_s = {symbol: since_s[symbol] for symbol in marks}
        self._marks = marks
        due_s = now_s - self._limit_s
        self.quiet = frozenset([symbol for symbol, at_s in since_s.items() if at_s < due_s])
        self.oldest_s = now_s - min(since_s.values(), default=now_s)

    def restart(self) -> None:
        """No quote could come, or none could be seen: every symbol begins anew."""
        self._marks, self._since_s = {}, {}
        self.quiet, self.oldest_s = frozenset(), 0.0
