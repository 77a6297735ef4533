"""Batches between stamping and the server's word that they are stored.

Decides what is sent next and what must be sent again. Must never know sockets, scripts or the clock. Every
batch is in exactly one place: in flight (sent on this connection, unanswered) or waiting (never sent, refused, or
lost with a connection). Order is by number and never changes: the server applies a batch only after the one before.
"""

from collections import deque

from ingestor.publisher.stamper import Batch


class Outbox:
    """At most `window` batches in flight; a refusal stops sending until `go_on`."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._in_flight: deque[Batch] = deque()
        self._waiting: deque[Batch] = deque()
        self._refused: list[Batch] = []
        self._stopped = True
        self.answered = 0

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "running"
        return f"<Outbox {state}, {len(self._in_flight)} in flight, {self.waiting} waiting>"

    @property
    def in_flight(self) -> int:
        """Batches sent and unanswered."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Batches to be sent, for the first time or again."""
        return len(self._waiting) + len(self._refused)

    @property
    def is_empty(self) -> bool:
        """Whether everything that was added is known to be stored."""
        return not (self._in_flight or self._waiting or self._refused)

    @property
    def quotes(self) -> int:
        """Quotes in all batches that are not known to be stored."""
        return sum(batch.quotes for held in (self._in_flight, self._waiting, self._refused) for batch in held)

    @property
    def oldest_received_ns(self) -> int | None:
        """When the oldest quote that is not known to be stored was received."""
        held = [
            b.first_received_ns for group in (self._in_flight, self._waiting, self._refused) for b in group
        ]
        return min(held, default=None)

    @property
    def has_room(self) -> bool:
        """Whether a new batch could go out at once."""
        return not self._stopped and not self._waiting and len(self._in_flight) < self._window

    def add(self, batch: Batch) -> None:
        """Take charge of a new batch."""
        self._waiting.append(batch)

    def next(self) -> Batch | None:
        """The batch to send now, recorded as in flight; None while the window is full or sending is stopped."""
        if self._stopped or not self._waiting or len(self._in_flight) >= self._window:
            return None
        batch = self._waiting.popleft()
        self._in_flight.append(batch)
        return batch

    def stored(self) -> Batch:
        """The oldest batch in flight was answered, and needs no more care."""
        batch = self._in_flight.popleft()
        self.answered = max(self.answered, batch.number)
        return batch

    def refused(self) -> Batch:
        """The oldest batch in flight was refused whole, and so will be those behind it."""
        batch = self._in_flight.popleft()
        self._refused.append(batch)
        self._stopped = True
        return batch

    @property
    def is_stopped(self) -> bool:
        """Whether a refusal or a lost connection has stopped sending."""
        return self._stopped

    @property
    def is_refused_whole(self) -> bool:
        """Whether sending is stopped, and every batch that was under way has been answered."""
        return self._stopped and not self._in_flight

    def go_on(self) -> None:
        """Send again what was refused, and go on."""
        assert not self._in_flight, "the answers of batches in flight are still to come"
        self._waiting = deque(sorted([*self._refused, *self._waiting], key=lambda batch: batch.number))
        self._refused = []
        self._stopped = False

    def lost(self) -> None:
        """The connection is gone: what was in flight may or may not be stored."""
        for batch in self._in_flight:
            batch.sent_before = True
        self._refused += self._in_flight
        self._in_flight.clear()
        self._stopped = True

    def resume(self, applied: int) -> list[Batch]:
        """A new connection, on which the server says what it applied last; what was stored after all is
        returned, the rest will be sent again."""
        self.go_on()
        settled = []
        while self._waiting and self._waiting[0].sent_before and self._waiting[0].number <= applied:
            settled.append(self._waiting.popleft())
        if settled:
            self.answered = max(self.answered, settled[-1].number)
        return settled
