"""A histogram that costs the hot path one bisection.

Decides which bucket a value falls into. Must never know what it measures; `metrics` turns it into Prometheus' form
at scrape time, so nothing is rendered, locked or labelled per observation.
"""

from bisect import bisect_left
from typing import Final


class Histogram:
    """Counts by upper bound, plus the sum; the last bucket is unbounded."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, *bounds: float) -> None:
        self.bounds: Final = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the exposition format wants them."""
        total = 0
        out = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            out.append((bound, float(total)))
        return out
