"""Which symbols have gone without a quote for too long.

Decides that from marks that change with each quote of a symbol (the venue's time of the last one will do), seen
every few seconds. Must never know the clock, nor what a quote is: a tape of last year is as good as a live market.
"""

from collections.abc import Mapping


class SilentSymbols:
    """Remembers, for each symbol, its mark and when that was first seen. `limit_s` 0 looks at nothing."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: dict[str, tuple[int | None, float]] = {}
        self.quiet: frozenset[str] = frozenset()
        self.oldest_s = 0.0

    def look(self, now_s: float, marks: Mapping[str, int | None]) -> None:
        """The marks of all symbols that are live now; one that was not among them before begins anew."""
        if not self._limit_s:
            return
        before, seen = self._seen, {}
        for symbol, mark in marks.items():
            known = before.get(symbol)
            seen[symbol] = known if known is not None and known[0] == mark else (mark, now_s)
        self._seen = seen
        due_s = now_s - self._limit_s
        self.quiet = frozenset([symbol for symbol, (_, since_s) in seen.items() if since_s < due_s])
        self.oldest_s = now_s - min((since_s for _, since_s in seen.values()), default=now_s)

    def restart(self) -> None:
        """No quote could come, or none could be seen: every symbol begins anew."""
        if self._seen:
            self._seen, self.quiet, self.oldest_s = {}, frozenset(), 0.0
