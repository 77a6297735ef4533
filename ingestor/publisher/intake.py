"""The queue between feed and stamper: frames as they came.

Decides nothing but the order. Must never know Redis, the feed or the clock. Frames are kept whole, so that
receiving costs one append per frame; how many may wait here is for the publisher to say. A hole in the feed
stands in the queue where it happened: what was received before it is stored before its marker.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ingestor.feed.codec import Refused
from ingestor.feed.messages import QuoteMessage

REJECTED: Final = "rejected"
"""The reason of a hole where a quote was received that cannot be stored."""


@dataclass(frozen=True, slots=True)
class Hole:
    """From here on, quotes of these symbols may be missing. `words` say why a quote was `REJECTED`."""

    symbols: frozenset[str]
    reason: str
    words: str = ""


Received: TypeAlias = tuple[int, list[QuoteMessage] | Hole]
"""When one frame was read, in nanoseconds since the epoch, and its quotes; or when a hole began. A plain tuple,
because there is one per frame and a named one costs eight times as much to make."""


class Intake:
    """First in, first out. True while it holds anything, be it a hole; `depth` counts quotes."""

    __slots__ = ("_frames", "depth")

    def __init__(self) -> None:
        self._frames: deque[Received] = deque()
        self.depth = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def put(self, received_ns: int, quotes: list[QuoteMessage]) -> None:
        """Take in one frame."""
        if quotes:
            self._frames.append((received_ns, quotes))
            self.depth += len(quotes)

    def put_around(
        self,
        received_ns: int,
        quotes: list[QuoteMessage],
        refused: Sequence[Refused],
        knows: Callable[[str], bool],
    ) -> None:
        """Take in a frame in which quotes were refused: each leaves a hole in its place, where its symbol is one of
        those that are known."""
        start = 0
        for one in refused:
            if one.symbol is not None and knows(one.symbol):
                self.put(received_ns, quotes[start : one.before])
                start = one.before
                self.put_hole(received_ns, Hole(frozenset((one.symbol,)), REJECTED, one.words))
        self.put(received_ns, quotes[start:])

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
        if last is not None and (last.reason, last.words) == (hole.reason, hole.words):
            self._frames[-1] = (self._frames[-1][0], Hole(last.symbols | new, hole.reason, hole.words))
        else:
            self._frames.append((at_ns, Hole(new, hole.reason, hole.words)))

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
