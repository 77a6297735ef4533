"""The queue between feed and stamper: frames as they came.

Decides nothing but the order. Must never know Redis, the feed or the clock. Frames are kept whole, so that
receiving costs one append per frame; how many may wait here is for the publisher to say. A hole in the feed
stands in the queue where it happened: what was received before it is stored before its marker.
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from ingestor.feed.messages import QuoteMessage


@dataclass(frozen=True, slots=True)
class Hole:
    """From here on, quotes of these symbols may be missing."""

    symbols: frozenset[str]
    reason: str


Received: TypeAlias = tuple[int, list[QuoteMessage] | Hole]
"""When one frame was read, in nanoseconds since the epoch, and its quotes; or when a hole began. A plain tuple,
because there is one per frame and a named one costs eight times as much to make."""


class Intake:
    """First in, first out."""

    __slots__ = ("_frames", "depth")

    def __init__(self) -> None:
        self._frames: deque[Received] = deque()
        self.depth = 0

    def put(self, received_ns: int, quotes: list[QuoteMessage]) -> None:
        """Take in one frame."""
        if quotes:
            self._frames.append((received_ns, quotes))
            self.depth += len(quotes)

    def put_hole(self, at_ns: int, hole: Hole) -> None:
        """Remember that quotes are missing after those that are queued now.

        A hole that is open keeps its beginning and its reason, so symbols in which no quote came since the last one
        are not noted again: a night of lost connections must not fill the memory.
        """
        new, last = hole.symbols, None
        for _, earlier in reversed(self._frames):
            if not isinstance(earlier, Hole):
                break
            new, last = new - earlier.symbols, last or earlier
        if not new:
            return
        if last is not None and last.reason == hole.reason:
            self._frames[-1] = (self._frames[-1][0], Hole(last.symbols | new, hole.reason))
        else:
            self._frames.append((at_ns, Hole(new, hole.reason)))

    def take(self, most: int) -> list[Received]:
        """Up to `most` quotes from the front, in order, and the holes among them; a larger frame is divided."""
        taken: list[Received] = []
        frames = self._frames
        while frames and most > 0:
            size = _size(frames[0])
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
        """When the front quote was read, or None when the queue holds none."""
        return self._frames[0][0] if self.depth else None

    def _divide(self, count: int) -> Received:
        received_ns, quotes = self._frames[0]
        assert isinstance(quotes, list)
        self._frames[0] = (received_ns, quotes[count:])
        return received_ns, quotes[:count]


def _size(element: Received) -> int:
    return len(element[1]) if isinstance(element[1], list) else 0
