"""The bounded queue between feed and publisher: what was received and is not yet in a batch.

Decides who goes when it is full: the oldest, because a market's newest prices are worth more. Must never know
Redis, the feed or the clock. Frames are kept as they came, so that receiving costs one append per frame; every
quote that goes is handed back to be counted and marked.
"""

from collections import deque
from typing import TypeAlias

from ingestor.feed.messages import QuoteMessage

Received: TypeAlias = tuple[int, list[QuoteMessage]]
"""When one frame was read, in nanoseconds since the epoch, and its quotes. A plain tuple, because there is one per
frame and a named one costs eight times as much to make."""


class Intake:
    """First in, first out, at most `capacity` quotes."""

    __slots__ = ("_capacity", "_frames", "depth")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._frames: deque[Received] = deque()
        self.depth = 0

    def put(self, received_ns: int, quotes: list[QuoteMessage]) -> list[Received]:
        """Take in one frame; the returned ones, oldest first, had to go for it."""
        if not quotes:
            return []
        self._frames.append((received_ns, quotes))
        self.depth += len(quotes)
        if self.depth <= self._capacity:
            return []
        return self._shed()

    def take(self, most: int) -> list[Received]:
        """Up to `most` quotes from the front, in order; a larger frame is divided."""
        taken: list[Received] = []
        frames = self._frames
        while frames and most > 0:
            size = len(frames[0][1])
            if size > most:
                taken.append(self._divide(most))
                self.depth -= most
                break
            taken.append(frames.popleft())
            self.depth -= size
            most -= size
        return taken

    @property
    def oldest_received_ns(self) -> int | None:
        """When the front quote was read, or None when the queue is empty."""
        return self._frames[0][0] if self._frames else None

    def _shed(self) -> list[Received]:
        gone = []
        while self.depth > self._capacity:
            excess = self.depth - self._capacity
            if len(self._frames[0][1]) > excess:
                gone.append(self._divide(excess))
                self.depth -= excess
            else:
                gone.append(self._frames.popleft())
                self.depth -= len(gone[-1][1])
        return gone

    def _divide(self, count: int) -> Received:
        received_ns, quotes = self._frames[0]
        self._frames[0] = (received_ns, quotes[count:])
        return received_ns, quotes[:count]
