"""What became of every quote, in plain integers.

Decides nothing. Must never know how a number is shown; `watching.metrics` reads it at scrape time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ingestor.feed.codec import Refused
from ingestor.histogram import Histogram

LATENCY_BOUNDS_S: Final = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
BATCH_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1024)
MAX_KINDS: Final = 32


@dataclass(slots=True)
class PublishCounts:
    """The ledger of this process, cumulative since start. At all times
    received + recovered = stored + already_stored + rejected + dropped + queued + unanswered + spooled."""

    received: int = 0
    recovered: int = 0
    """Quotes that an earlier life of the daemon left in the spool."""
    stored: int = 0
    already_stored: int = 0
    markers_stored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejections: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By reason the last quote that was rejected: its symbol, and why in words."""
    dropped: dict[str, int] = field(default_factory=dict)
    replayed: int = 0
    """Quotes sent again since the server had acknowledged and then forgotten them; stored once in this ledger."""
    lost_by_redis: int = 0
    """Quotes that the server acknowledged and forgot when they were not kept any more."""
    streams_vanished: int = 0
    spool_errors: int = 0
    batches: int = 0
    batches_resent: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    cache_errors: int = 0
    reconnects: int = 0
    latency_s: Histogram = field(default_factory=lambda: Histogram(*LATENCY_BOUNDS_S))
    append_s: Histogram = field(default_factory=lambda: Histogram(*LATENCY_BOUNDS_S))
    batch_entries: Histogram = field(default_factory=lambda: Histogram(*BATCH_BOUNDS))

    def reject(self, reason: str, symbol: str, words: str) -> None:
        """Count one quote that cannot be stored."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        self.rejections[reason] = symbol, words

    def reject_all(self, refused: Iterable[Refused]) -> None:
        """Count quotes that could not even be read as such."""
        for one in refused:
            self.reject(one.reason, one.symbol or "", one.words)

    def drop(self, reason: str, quotes: int) -> None:
        """Count quotes that were given up."""
        self.dropped[reason] = self.dropped.get(reason, 0) + quotes

    @property
    def dropped_total(self) -> int:
        """Quotes given up, for whatever reason."""
        return sum(self.dropped.values())

    def refuse(self, kind: str) -> None:
        """Count one batch that was refused whole. Kinds are the server's words: beyond some they are `other`."""
        if kind not in self.refusals and len(self.refusals) >= MAX_KINDS:
            kind = "other"
        self.refusals[kind] = self.refusals.get(kind, 0) + 1
