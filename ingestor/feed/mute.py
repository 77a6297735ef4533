"""Silence of all symbols on a socket that lives.

Decides how long is too long, and when a new connection is worth its gap. Must never know the clock. A set that is
merely illiquid must not cost one connection after the other, so each that did not help doubles the wait.
"""

from typing import Final

from ingestor.feed.findings import Finding, Kind, Observation

INTERVALS_BEFORE_MUTE: Final = 20.0
"""With quotes at random times, a pause of twenty mean intervals comes by chance once in half a billion quotes."""
LONGEST_WAIT_S: Final = 900.0
NOTHING_LIVE_S: Final = 10.0


def mute_limit_s(after_s: float, interval_s: float | None, strikes: int) -> float:
    """How long a silence may last after so many reconnections that brought nothing.

    Doubling ends at a quarter of an hour; a set whose habit is slower still keeps its own limit.
    """
    usual_s = max(after_s, INTERVALS_BEFORE_MUTE * (interval_s or 0.0))
    return max(usual_s, min(LONGEST_WAIT_S, usual_s * 2.0 ** min(strikes, 30)))


class Mute:
    """Silence of all symbols. After each reconnection the threshold is doubled, until a quote comes."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._strikes = 0
        self._limit_s = after_s
        self._quiet_from_s: float | None = None
        self._waiting_from_s: float | None = None
        self._nothing_live_from_s: float | None = None
        self.has_nothing_to_hear = False
        self._finding: Finding | None = None

    def restart(self) -> None:
        """From now on count anew."""
        self._waiting_from_s = self._quiet_from_s = None

    def close(self) -> None:
        """Silence is as it should be."""
        self.restart()
        self._strikes, self._finding, self._nothing_live_from_s = 0, None, None

    def silence_s(self, now_s: float) -> float:
        """For how long no quote has come, although some could."""
        return now_s - self._quiet_from_s if self._quiet_from_s is not None else 0.0

    def look(self, seen: Observation, quotes: int, interval_s: float | None) -> Finding | None:
        """The finding, if there is one, after a second in which so many quotes came."""
        now_s = seen.now_s
        if quotes:
            self._strikes, self._finding = 0, None
            self._waiting_from_s = self._quiet_from_s = now_s
        if not (seen.is_connected and seen.live):
            return self._look_unsubscribed(seen)
        self._nothing_live_from_s, self.has_nothing_to_hear = None, False
        if self._waiting_from_s is None:
            self._waiting_from_s = now_s
        if self._quiet_from_s is None:
            self._quiet_from_s = now_s
        self._limit_s = mute_limit_s(self._after_s, interval_s, self._strikes)
        if self._after_s and (self._finding or now_s - self._waiting_from_s > self._limit_s):
            silence_s = self.silence_s(now_s)
            reason = f"no quote of {seen.live} live symbols for {silence_s:.0f} s, though the socket lives"
            self._finding = Finding(Kind.MUTE, now_s, silence_s, self._limit_s, reason)
        return self._finding

    def strike(self, now_s: float) -> bool:
        """Whether to reconnect now; saying yes begins the next, longer wait."""
        if self._finding is None or self._waiting_from_s is None:
            return False
        if now_s - self._waiting_from_s <= self._limit_s:
            return False
        self._strikes += 1
        self._waiting_from_s = None
        return True

    def _look_unsubscribed(self, seen: Observation) -> Finding | None:
        self._waiting_from_s = None
        if not seen.is_connected:
            self._nothing_live_from_s = None
        elif self._nothing_live_from_s is None:
            # A new session has no symbols for a moment, which ends nothing.
            self._nothing_live_from_s = seen.now_s
        elif seen.now_s - self._nothing_live_from_s > NOTHING_LIVE_S:
            self.has_nothing_to_hear = True
            self._finding, self._quiet_from_s = None, None
        return self._finding
