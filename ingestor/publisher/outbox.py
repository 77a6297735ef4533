"""Batches between leaving the queue and the server's word that they are stored, and for a while beyond it.

Decides what is sent next, what must be sent again, and for how long a stored batch is kept because a server may
forget it. Must never know sockets, scripts or the clock: `now_s` is an argument. Every batch is in exactly one
place: in flight (sent on this connection, unanswered), waiting (never sent, refused, or lost with a connection)
or kept (stored, and young enough to be sent again). Order is by number and never changes: the server applies a
batch only after the one before.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from ingestor.publisher.batch import Batch

MAX_COUNTED: Final = 10_000
"""Of so many forgotten batches it is still known how many quotes they had."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a new connection means: `settled` was stored after all, `replayed` was stored and forgotten and will be
    sent again; the number of batches and quotes that were forgotten and are not kept any more."""

    settled: list[Batch]
    replayed: list[Batch]
    lost_batches: int
    lost_quotes: int


class Outbox:
    """At most `window` batches in flight; a refusal stops sending until `go_on`."""

    def __init__(self, window: int, *, replay_s: float, replay_bytes: int) -> None:
        self._window = window
        self._replay_s = replay_s
        self._replay_bytes = replay_bytes
        self._in_flight: deque[Batch] = deque()
        self._waiting: deque[Batch] = deque()
        self._refused: list[Batch] = []
        self._kept: deque[tuple[float, Batch]] = deque()
        self._kept_bytes = 0
        self._let_go: deque[tuple[int, int]] = deque(maxlen=MAX_COUNTED)
        self._next_number = 1
        self._stopped = True
        self.answered = 0
        self.times_forgotten = 0
        """How often a server came back with less than it had acknowledged."""

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "running"
        return (
            f"<Outbox {state}, {len(self._in_flight)} in flight, {self.waiting} waiting, "
            f"{len(self._kept)} kept>"
        )

    @property
    def in_flight(self) -> int:
        """Batches sent and unanswered."""
        return len(self._in_flight)

    @property
    def is_first_attempt(self) -> bool:
        """Whether the oldest batch in flight was never sent before: it cannot have been applied already."""
        return not self._in_flight[0].sent_before

    @property
    def waiting(self) -> int:
        """Batches to be sent, for the first time or again."""
        return len(self._waiting) + len(self._refused)

    @property
    def is_empty(self) -> bool:
        """Whether everything that was added is known to be stored."""
        return not (self._in_flight or self._waiting or self._refused)

    @property
    def unsettled(self) -> list[Batch]:
        """All batches that are not known to be stored, in order."""
        # Those behind a refused one may still be in flight.
        return sorted([*self._refused, *self._in_flight, *self._waiting], key=_order)

    @property
    def quotes(self) -> int:
        """Quotes that are not known to be stored; those that are sent again are accounted as stored."""
        return sum(batch.quotes for batch in self._all() if not batch.accounted)

    @property
    def replaying(self) -> int:
        """Quotes that were stored and forgotten by the server, and are not known to be stored again."""
        return sum(batch.quotes for batch in self._all() if batch.accounted)

    @property
    def kept(self) -> list[Batch]:
        """Stored batches that could be sent again, in order."""
        return [batch for _, batch in self._kept]

    @property
    def kept_bytes(self) -> int:
        """Memory that stored batches take up."""
        return self._kept_bytes

    @property
    def oldest_received_ns(self) -> int | None:
        """When the oldest quote that is not known to be stored was received."""
        held = (batch.first_received_ns for batch in self._all())
        return min((at_ns for at_ns in held if at_ns), default=None)

    @property
    def room(self) -> int:
        """How many new batches could go out at once."""
        return 0 if self._stopped or self._waiting else self._window - len(self._in_flight)

    def add(self, batch: Batch) -> None:
        """Take charge of a new batch."""
        self._waiting.append(batch)

    def next(self) -> Batch | None:
        """The batch to send now, recorded as in flight; None while the window is full or sending is stopped."""
        if self._stopped or not self._waiting or len(self._in_flight) >= self._window:
            return None
        batch = self._waiting.popleft()
        if batch.number == 0:
            batch.number, self._next_number = self._next_number, self._next_number + 1
        self._in_flight.append(batch)
        return batch

    def stored(self, now_s: float) -> Batch:
        """The oldest batch in flight was answered; it is kept in case the server forgets it."""
        batch = self._in_flight.popleft()
        self._settle(batch, now_s)
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
        self._waiting = deque(sorted([*self._refused, *self._waiting], key=_order))
        self._refused = []
        self._stopped = False

    def lost(self) -> None:
        """The connection is gone: what was in flight may or may not be stored."""
        for batch in self._in_flight:
            batch.sent_before = True
        self._refused += self._in_flight
        self._in_flight.clear()
        self._stopped = True

    @property
    def sent(self) -> int:
        """The highest number that was ever sent."""
        return self._next_number - 1

    @property
    def first_number(self) -> int:
        """The lowest number that can be sent, now or again."""
        known = chain((batch for _, batch in self._kept), self._all())
        return min((batch.number for batch in known if batch.number), default=self._next_number)

    def resume(self, applied: int, now_s: float) -> Resumed:
        """A new connection, on which the server says what it applied last."""
        first = self.first_number
        replayed = self._replay(applied)
        # Their time counts while the server answers: one that was cut off may come back, and only then fail over.
        self._kept = deque((now_s, batch) for _, batch in self._kept)
        self.go_on()
        settled = []
        while self._waiting and self._waiting[0].is_proven(applied):
            batch = self._waiting.popleft()
            self._settle(batch, now_s)
            settled.append(batch)
        lost_batches = max(0, min(self.answered, first - 1) - applied)
        self.times_forgotten += bool(replayed or lost_batches)
        return Resumed(settled, replayed, lost_batches, self._forgotten_quotes(applied))

    def forget(self, now_s: float) -> None:
        """Let go of stored batches that are older than a server's memory can be expected to be short."""
        while self._kept and (
            now_s - self._kept[0][0] > self._replay_s or self._kept_bytes > self._replay_bytes
        ):
            _, batch = self._kept.popleft()
            self._kept_bytes -= batch.size_bytes
            self._let_go.append((batch.number, batch.quotes))

    def put_first(self, batch: Batch, number: int) -> None:
        """A batch that goes before all others, under a number that is not used any more."""
        batch.number = number
        self._waiting.appendleft(batch)

    def _replay(self, applied: int) -> list[Batch]:
        replayed = []
        while self._kept and self._kept[-1][1].number > applied:
            _, batch = self._kept.pop()
            self._kept_bytes -= batch.size_bytes
            batch.sent_before = batch.accounted = True
            # The disk was told that it is stored, and may have let go of its copy.
            batch.position = None
            replayed.append(batch)
        replayed.reverse()
        self._refused += replayed
        return replayed

    def _forgotten_quotes(self, applied: int) -> int:
        """Of batches that are not kept any more; each is told once, however often the server forgets it."""
        quotes = 0
        while self._let_go and self._let_go[-1][0] > applied:
            quotes += self._let_go.pop()[1]
        return quotes

    def _settle(self, batch: Batch, now_s: float) -> None:
        self.answered = max(self.answered, batch.number)
        self._kept.append((now_s, batch))
        self._kept_bytes += batch.size_bytes
        self.forget(now_s)

    def _all(self) -> Iterable[Batch]:
        return chain(self._in_flight, self._waiting, self._refused)


def _order(batch: Batch) -> float:
    """By number; those that were never sent have none, and stay behind in the order in which they came."""
    return batch.number or float("inf")
