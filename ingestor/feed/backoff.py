"""How long to wait before the next connection.

Decides a delay from why the last one ended. Must never sleep. Only market data proves that a connection was
worth having, so only market data resets the count: a vendor that accepts and drops at once is not hammered.
"""

import random
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


PACES: Final = {
    Remedy.RECONNECT: Pace(0.5, 30.0),
    # A slot that our own dead connection holds comes free within 90 s.
    Remedy.SLOT_TAKEN: Pace(5.0, 30.0),
    Remedy.REJECTED: Pace(30.0, 300.0),
}


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


class Backoff:
    """Counts attempts since market data last flowed; jitter keeps a fleet from returning in step."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.attempt = 0

    def data_flowed(self) -> None:
        """The connection was worth having."""
        self.attempt = 0

    def delay_s(self, remedy: Remedy, at_least_s: float = 0.0) -> float:
        """The wait before the next attempt, in seconds: between half of the pace's delay and all of it, and
        never under what the vendor asked for (`Retry-After`)."""
        self.attempt += 1
        full_s = PACES.get(remedy, PACES[Remedy.RECONNECT]).delay_s(self.attempt)
        return max(full_s * self._rng.uniform(0.5, 1.0), at_least_s)
