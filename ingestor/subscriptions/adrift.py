"""For how long the vendor's set has differed from what was asked, without coming closer.

Decides nothing but that age. Must never know the clock or the socket. Refused and waiting symbols are no
difference; time without a connection does not count, and a new session that gets no further does not begin the
count anew.
"""

from ingestor.subscriptions.book import SubscriptionBook


class Adrift:
    """Look about once a second; `age_s` is connected time, in seconds."""

    def __init__(self) -> None:
        self.age_s = 0.0
        self._version = -1
        self._is_settled = True
        self._confirmed: frozenset[str] = frozenset()
        self._last_s: float | None = None

    def look(self, now_s: float, book: SubscriptionBook, version: int, *, connected: bool) -> float:
        """The age now. `version` changes with every change of the book, so that it is not compared for nothing."""
        passed_s = now_s - self._last_s if self._last_s is not None else 0.0
        self._last_s = now_s if connected else None
        if not connected:
            return self.age_s
        has_moved = False
        if version != self._version:
            self._version = version
            self._is_settled = book.settled
            has_moved = book.confirmed != self._confirmed
            self._confirmed = book.confirmed
        self.age_s = 0.0 if self._is_settled or has_moved else self.age_s + passed_s
        return self.age_s
