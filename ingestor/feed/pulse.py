"""How often quotes come, learnt from how often they came.

Decides what silence is unusual for this set of symbols, and whether the rate has collapsed. Must never know the
clock or the market's hours: it is told of each second in which quotes could have come, and of no other.
"""

from collections import deque
from math import exp
from typing import Final

INTERVAL_WEIGHT: Final = 0.125
"""Of each new interval. Learnt per interval and not per second: the first long pauses of a quiet evening count at
once, however busy the day was."""
LONGEST_INTERVAL_S: Final = 300.0
"""What a pause counts for at most: one outage of hours must not pass for the habit of an illiquid set."""
BASELINE_S: Final = 300.0
WARM_UP_S: Final = 120.0
RECENT_S: Final = 5.0
LOW_SHARE: Final = 0.1
LOW_FOR_AT_MOST_S: Final = 900.0
"""After so long the lower rate is taken for normal, and learnt anew (docs/decisions/0032)."""


class Pulse:
    """Mean interval between quotes, rate of the last minutes, rate of the last seconds."""

    def __init__(self) -> None:
        self.interval_s: float | None = None
        self._last_s: float | None = None
        self._watched_s = 0.0
        """All seconds in which quotes could have come; pauses are measured in these."""
        self._pause_from_s: float | None = None
        self._weighted = self._weight = 0.0
        self._recent: deque[tuple[float, int]] = deque()
        self._low_since_s: float | None = None

    @property
    def baseline(self) -> float:
        """Quotes per second over the last minutes; 0 while too little is known."""
        return self._weighted / self._weight if self._weight >= WARM_UP_S else 0.0

    @property
    def recent(self) -> float | None:
        """Quotes per second over the last seconds; None when they were not watched throughout."""
        if not self._recent or self._recent[-1][0] - self._recent[0][0] < RECENT_S:
            return None
        span_s = self._recent[-1][0] - self._recent[0][0]
        return sum(count for _, count in list(self._recent)[1:]) / span_s

    def beat(self, now_s: float, quotes: int) -> None:
        """So many quotes came since the last beat, about a second ago."""
        since_s = now_s - self._last_s if self._last_s is not None else 0.0
        self._last_s = now_s
        self._watched_s += since_s
        self._learn_interval(since_s, quotes)
        self._recent.append((now_s, quotes))
        while len(self._recent) > 1 and now_s - self._recent[1][0] >= RECENT_S:
            self._recent.popleft()
        self._judge(now_s)
        if self._low_since_s is None and since_s > 0:
            keep = exp(-since_s / BASELINE_S)
            self._weighted = self._weighted * keep + quotes
            self._weight = self._weight * keep + since_s

    def skip(self) -> None:
        """Nothing could come for a while, or nobody watched: what lies between the beats says nothing."""
        self._last_s = None
        self._recent.clear()
        self._low_since_s = None

    def begin(self) -> None:
        """Another session of the market, with another rate."""
        self.skip()
        self._weighted = self._weight = 0.0

    def close(self) -> None:
        """The market has closed: the pause until it opens is no interval."""
        self.begin()
        self._pause_from_s = None

    def low_s(self, now_s: float) -> float:
        """For how long the rate has been below a tenth of the baseline."""
        return now_s - self._low_since_s if self._low_since_s is not None else 0.0

    def _learn_interval(self, since_s: float, quotes: int) -> None:
        if not quotes:
            return
        before_s, self._pause_from_s = self._pause_from_s, self._watched_s
        if before_s is None or before_s == self._watched_s:
            return
        pause_s = self._watched_s - before_s
        # Within a second only the number of quotes tells how close they were.
        interval_s = pause_s / quotes if pause_s <= since_s else min(pause_s, LONGEST_INTERVAL_S)
        if self.interval_s is None:
            self.interval_s = interval_s
        else:
            self.interval_s += (interval_s - self.interval_s) * INTERVAL_WEIGHT

    def _judge(self, now_s: float) -> None:
        recent = self.recent
        if recent is None or recent >= LOW_SHARE * self.baseline:
            self._low_since_s = None
        elif self._low_since_s is None:
            self._low_since_s = now_s
        elif now_s - self._low_since_s > LOW_FOR_AT_MOST_S:
            self.begin()
