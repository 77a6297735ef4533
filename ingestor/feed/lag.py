"""How old quotes are when they arrive.

Decides when the vendor is too far behind, when a new connection may clear what piles up there, and when the clocks
disagree. Must never read a clock. Its measure is a median, so one odd time among the quotes says nothing.
"""

from collections import deque
from statistics import median
from typing import Final

from ingestor.feed.findings import Finding, Kind, Limits, Observation

SAMPLES: Final = 30
SAMPLES_AT_LEAST: Final = 3
MEMORY_S: Final = 300.0
LATE_FOR_S: Final = 15.0
RECONNECT_PAUSE_S: Final = (300.0, 3600.0)
"""Between two reconnections for lag: the first, doubling up to the last while they do not help."""
REPLAY_S: Final = 3600.0
"""Quotes older than this are a tape that somebody replays."""
SKEW_S: Final = 1.0


class Lag:
    """The last samples, one per observation at most. `lag_s` is beyond what the feed is late on purpose."""

    def __init__(self, limits: Limits) -> None:
        self._limit_s, self._delay_s = limits.vendor_lag_limit_s, limits.delay_s
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._received_ns = 0
        self._late_since_s: float | None = None
        self._pause_s, self._not_before_s = RECONNECT_PAUSE_S[0], float("-inf")
        self._late: Finding | None = None
        self._late_seen_s = float("-inf")
        self.lag_s = 0.0

    def restart(self) -> None:
        """A new session: what waited at the vendor for the old one says nothing about it."""
        self._samples.clear()
        self._late_since_s = None

    def close(self) -> None:
        """The market is closed: nothing is late, and nothing is remembered but the last reconnection."""
        self.restart()
        self._late = None
        self.lag_s = 0.0

    def look(self, seen: Observation) -> dict[Kind, Finding | None]:
        """Both findings, each of which may be missing."""
        now_s, samples = seen.now_s, self._samples
        if seen.frame is not None and seen.frame[0] != self._received_ns:
            self._received_ns = seen.frame[0]
            samples.append((now_s, (seen.frame[0] - seen.frame[1]) / 1e9))
        while samples and now_s - samples[0][0] > MEMORY_S:
            samples.popleft()
        if len(samples) < SAMPLES_AT_LEAST:
            if not samples:
                self.lag_s = 0.0
            # Too little to change an opinion; after minutes without quotes there is none to keep.
            if now_s - self._late_seen_s > MEMORY_S:
                self._late = None
            return {Kind.VENDOR_LAG: self._late, Kind.CLOCK_SKEW: None}
        raw_s = median(lag_s for _, lag_s in samples)
        self.lag_s = raw_s - self._delay_s
        return {Kind.VENDOR_LAG: self._look_late(now_s), Kind.CLOCK_SKEW: _skew(now_s, raw_s)}

    def strike(self, now_s: float) -> bool:
        """Whether to reconnect now; saying yes begins the pause before the next time."""
        if self._late is None or len(self._samples) < SAMPLES_AT_LEAST or now_s < self._not_before_s:
            return False
        self._not_before_s = now_s + self._pause_s
        self._pause_s = min(RECONNECT_PAUSE_S[1], 2 * self._pause_s)
        return True

    def _look_late(self, now_s: float) -> Finding | None:
        if not self._limit_s or not self._limit_s < self.lag_s <= REPLAY_S:
            self._late_since_s = self._late = None
            self._pause_s = RECONNECT_PAUSE_S[0]
            return None
        self._late_seen_s = now_s
        if self._late_since_s is None:
            self._late_since_s = now_s
        if self._late is not None or now_s - self._late_since_s >= LATE_FOR_S:
            reason = (
                f"quotes come {self.lag_s:.1f} s after the venue's time"
                "; if a new connection does not help, compare this machine's clock"
            )
            self._late = Finding(Kind.VENDOR_LAG, now_s, self.lag_s, self._limit_s, reason)
        return self._late


def _skew(now_s: float, raw_s: float) -> Finding | None:
    if raw_s >= -SKEW_S:
        return None
    reason = f"quotes are dated {-raw_s:.1f} s ahead of this machine's clock"
    return Finding(Kind.CLOCK_SKEW, now_s, -raw_s, SKEW_S, reason)
