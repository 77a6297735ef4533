"""Batches that wait in memory: for room in the outbox, or for the disk.

Decides who goes when memory is full: the oldest, because a market's newest prices are worth more. Must never know
Redis, files or the clock. What goes leaves one marker per symbol at the head of the queue, which grows with each
further loss until it is taken; so a long outage makes one hole per symbol and not thousands.
"""

from collections import deque
from typing import Final

from ingestor.publisher.batch import Batch, Losses, given_up

MAX_HEADROOM_BYTES: Final = 16 * 1024 * 1024
"""What may come while the disk is only beginning: half a second of the fastest feed."""


class Backlog:
    """First in, first out, at most `capacity_bytes` of batches."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._headroom_bytes = min(capacity_bytes // 2, MAX_HEADROOM_BYTES)
        self._batches: deque[Batch] = deque()
        self._losses: Losses | None = None
        self.bytes = 0
        self.quotes = 0

    def __repr__(self) -> str:
        return f"<Backlog {len(self._batches)} batches, {self.bytes} bytes>"

    def __bool__(self) -> bool:
        return bool(self._batches) or self._losses is not None

    @property
    def is_filling(self) -> bool:
        """Whether it is time to move to the disk, which takes a moment."""
        return self.bytes > self._capacity_bytes - self._headroom_bytes

    @property
    def begins_with_markers(self) -> bool:
        """Whether nothing but markers is next: some had to go, and what tells of them was not taken, or was put
        back. The next loss would be told by the same ones."""
        return self._losses is not None or bool(self._batches and not self._batches[0].quotes)

    @property
    def oldest_received_ns(self) -> int | None:
        """When the oldest quote in it was received."""
        return self._batches[0].first_received_ns if self._batches else None

    def put(self, batch: Batch) -> None:
        """Take charge of a new batch."""
        self._batches.append(batch)
        self.bytes += batch.size_bytes
        self.quotes += batch.quotes

    def put_back(self, batches: list[Batch], epoch: int | None) -> dict[str, int]:
        """Batches that were taken and could not be handed on, in their order, before all others.

        Where later ones had to go meanwhile, these would be in the way of their markers, and go with them; the
        quotes lost per symbol.
        """
        if self._losses is not None:
            older = given_up(batches, "queue_full", epoch)
            lost = older.per_symbol()
            older.add(self._losses.seal())
            self._losses = older
            return lost
        for batch in reversed(batches):
            self._batches.appendleft(batch)
            self.bytes += batch.size_bytes
            self.quotes += batch.quotes
        return {}

    def take(self) -> Batch | None:
        """The oldest batch, or the markers of those that had to go before it."""
        if self._losses is not None:
            losses, self._losses = self._losses, None
            return losses.seal()
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self.bytes -= batch.size_bytes
        self.quotes -= batch.quotes
        return batch

    def shed(self, epoch: int | None) -> dict[str, int]:
        """Give up the oldest batches until the rest fits; the quotes lost per symbol."""
        if self.bytes <= self._capacity_bytes:
            return {}
        before = self._losses.per_symbol() if self._losses is not None else {}
        if self._losses is None:
            self._losses = Losses("queue_full", epoch)
        while self.bytes > self._capacity_bytes and self._batches:
            batch = self._batches.popleft()
            self.bytes -= batch.size_bytes
            self.quotes -= batch.quotes
            self._losses.add(batch)
        return {
            symbol: lost - before.get(symbol, 0)
            for symbol, lost in self._losses.per_symbol().items()
            if lost > before.get(symbol, 0)
        }
