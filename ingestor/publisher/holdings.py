"""How many quotes are where, between receipt and the server's word that they are stored.

Decides which place each count stands for, so that every quote is in exactly one, and whether the next of them may
be sent. Must never change anything.
"""

from ingestor.publisher.backlog import Backlog
from ingestor.publisher.displaced import Displaced
from ingestor.publisher.intake import Intake
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.spooling import Spooling


class Holdings:
    """The middle of the ledger; counted in quotes where nothing else is said."""

    def __init__(
        self, intake: Intake, backlog: Backlog, spooling: Spooling, outbox: Outbox, displaced: Displaced
    ) -> None:
        self._intake = intake
        self._backlog = backlog
        self._spooling = spooling
        self._outbox = outbox
        self._displaced = displaced

    @property
    def queued(self) -> int:
        """Waiting in memory, never sent."""
        return self._intake.depth + self._backlog.quotes + self._spooling.writing

    @property
    def spooled(self) -> int:
        """Waiting on disk."""
        return self._spooling.quotes

    @property
    def unanswered(self) -> int:
        """On their way, and not known to be stored."""
        return self._outbox.quotes + self._spooling.ahead_quotes + self._displaced.quotes

    @property
    def replaying(self) -> int:
        """Stored once, forgotten by the server, and on their way again; they count as stored meanwhile."""
        return self._outbox.replaying

    @property
    def total(self) -> int:
        """All that is not known to be stored now."""
        return self.queued + self.spooled + self.unanswered + self.replaying

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits at all: a batch of markers only is in no count."""
        waits = self._backlog or self._displaced or self._spooling.holds_back
        return not (self.total or waits) and self._outbox.is_empty

    @property
    def may_leave(self) -> bool:
        """Whether what waits longest may be sent now.

        Markers of a loss leave only with what they precede: behind them alone, the next loss would put a second
        marker for the same hole.
        """
        is_marker_next = self._backlog.begins_with_markers and not self._spooling.holds_back
        return not self._displaced and self._outbox.room > is_marker_next

    @property
    def memory_bytes(self) -> int:
        """Memory that waiting batches take up, and stored ones that are kept in case the server forgets them."""
        return self._backlog.bytes + self._outbox.kept_bytes

    @property
    def oldest_received_ns(self) -> int | None:
        """When the oldest quote that is not known to be stored was received."""
        held = (
            self._outbox.oldest_received_ns,
            self._spooling.oldest_received_ns,
            self._backlog.oldest_received_ns,
            self._intake.oldest_received_ns,
        )
        return min((at_ns for at_ns in held if at_ns), default=None)
