"""How long to wait before the next connection, and when to give up.

Decides a delay from why the last one ended. Must never sleep. Only market data proves that a connection was
worth having, so only market data resets the pauses: a vendor that accepts and drops at once is not hammered.
"""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from ingestor.feed.codes import Remedy


@dataclass(frozen=True, slots=True)
class Pace:
    """Doubling from `first_s` up to `cap_s`."""

    first_s: float
    cap_s: float

    def delay_s(self, attempt: int) -> float:
        """The undisturbed delay before attempt 1, 2, 3, …"""
        return float(min(self.cap_s, self.first_s * 2 ** min(attempt - 1, 30)))


@dataclass(frozen=True, slots=True)
class Patience:
    """An operator's choice: the pauses between connections, and after how many attempts in vain to give up; 0 is
    never."""

    first_s: float = 0.5
    longest_s: float = 30.0
    attempts: int = 0


REJECTED_PACE: Final = Pace(30.0, 300.0)
GHOST_PAUSE_S: Final = (2.5, 3.5)
"""While the account's connection is taken: a slot that our own dead connection holds comes free within 90 s, and a
pause that had grown by then would add to that."""
GHOST_TRIES: Final = 40
"""At that pace, a ghost is gone by then, with half a minute to spare."""
TAKEN_PAUSE_S: Final = (10.0, 15.0)
"""After that it is no ghost but somebody else's connection."""
WORTH_S: Final = 20.0
"""A session that was ready for so long was none in vain, even where the market was silent."""


MAX_RETRY_AFTER_S: Final = 300.0
"""The longest pause that we would make ourselves: a mistaken header must not keep the daemon away for a day."""


def retry_after_s(header: str, now_unix_s: float) -> float:
    """Seconds to stay away that a `Retry-After` asks for, as a number or as a date (RFC 9110, 10.2.3); 0 for
    anything else, and never more than `MAX_RETRY_AFTER_S`."""
    if header.isascii() and header.isdigit():
        asked_s = float(header)
    else:
        try:
            date = parsedate_to_datetime(header)
            asked_s = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now_unix_s
        except (ValueError, OverflowError):
            return 0.0
    return min(max(asked_s, 0.0), MAX_RETRY_AFTER_S)


class VendorGivenUp(Exception):
    """The vendor was tried as often as the settings allow; the message says how often and why it failed last."""


class Backoff:
    """Counts attempts since market data last flowed; jitter keeps a fleet from returning in step."""

    def __init__(self, rng: random.Random, patience: Patience = Patience()) -> None:
        self._rng = rng
        self._patience = patience
        self._pace = Pace(patience.first_s, max(patience.first_s, patience.longest_s))
        self._streaks: Counter[Remedy] = Counter()
        self._in_vain = 0
        self.attempt = 0

    def data_flowed(self) -> None:
        """The connection was worth having."""
        if self.attempt or self._in_vain:
            self.attempt = self._in_vain = 0
            self._streaks.clear()

    def was_ready(self, for_s: float) -> None:
        """A session had got through, and lasted so long."""
        self._streaks[Remedy.SLOT_TAKEN] = 0
        if for_s >= WORTH_S:
            self._in_vain = 0

    def is_exhausted(self) -> bool:
        """Whether the next attempt would be one more than the settings allow."""
        return 0 < self._patience.attempts < self._in_vain

    def delay_s(self, remedy: Remedy, at_least_s: float = 0.0) -> float:
        """The wait before the next attempt, in seconds: between half of the pace's delay and all of it, and
        never under what the vendor asked for (`Retry-After`)."""
        self.attempt += 1
        self._streaks[remedy] += 1
        streak = self._streaks[remedy]
        if remedy is Remedy.SLOT_TAKEN:
            is_ghost = streak <= GHOST_TRIES
            self._in_vain += not is_ghost
            return max(self._rng.uniform(*(GHOST_PAUSE_S if is_ghost else TAKEN_PAUSE_S)), at_least_s)
        self._in_vain += 1
        pace = REJECTED_PACE if remedy is Remedy.REJECTED else self._pace
        return max(pace.delay_s(streak) * self._rng.uniform(0.5, 1.0), at_least_s)
